"""What tests of flow need in a database: some of the dbt models, and calendars."""

import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

from stageline.config import PROJECT_ROOT
from stageline.database import Connection
from tests.working_time_oracle import Schedule

_PROJECT = """\
name: flow
version: "1.0"
config-version: 2
profile: stageline
models:
  +schema: intermediate
  +materialized: view
seeds:
  +schema: reference
"""
#: Whose change has every flow model built anew.
_SEEDS = ("canonical_major_stages", "canonical_substages", "canonical_stage_boundaries")

CALENDAR_MODELS = (
    "docs.md",
    "staging/entity_fields.md",
    "staging/base/settings/_settings__sources.yml",
    "staging/base/settings/base_settings__projects.sql",
    "staging/base/settings/base_settings__calendars.sql",
    "staging/base/settings/base_settings__calendar_windows.sql",
    "staging/base/settings/base_settings__day_exceptions.sql",
    "staging/stg_projects.sql",
    "staging/base/settings/base_settings__changes.sql",
    "staging/base/settings/base_settings__report_versions.sql",
    "staging/base/receiver/_receiver__sources.yml",
    "staging/base/receiver/base_receiver__entity_changes.sql",
    "staging/base/pipedrive/_pipedrive__sources.yml",
    "staging/base/pipedrive/base_pipedrive__entity_changes.sql",
    "staging/base/hubspot/hubspot_fields.md",
    "staging/base/hubspot/_hubspot__sources.yml",
    "staging/base/hubspot/base_hubspot__entity_changes.sql",
    "staging/base/salesforce/_salesforce__sources.yml",
    "staging/base/salesforce/base_salesforce__deletions.sql",
    "staging/base/salesforce/base_salesforce__entity_changes.sql",
    "staging/base/keycrm/_keycrm__sources.yml",
    "staging/base/keycrm/base_keycrm__entity_changes.sql",
    "staging/base/files/_files__sources.yml",
    "staging/base/files/base_files__entity_changes.sql",
    "intermediate/flow/int_calendar_scopes.sql",
    "intermediate/flow/int_flow_changes.sql",
    "intermediate/flow/int_working_calendar.sql",
)


def dbt_project(folder: Path, models: Iterable[str]) -> Path:
    """A dbt project of these files of ours alone: it is read in a fraction of the time."""
    shutil.copytree(PROJECT_ROOT / "macros", folder / "macros")
    shutil.copy(PROJECT_ROOT / "profiles.yml", folder)
    (folder / "dbt_project.yml").write_text(_PROJECT)
    (folder / "models").mkdir()
    for model in models:
        shutil.copy(PROJECT_ROOT / "models" / model, folder / "models")
    (folder / "seeds").mkdir()
    for seed in _SEEDS:
        shutil.copy(PROJECT_ROOT / "seeds/reference" / f"{seed}.csv", folder / "seeds")
    return folder


def keep_odd_clock(owner: Connection) -> None:
    """Gives the server's sessions a zone that no project has, and in which it is tomorrow."""
    with psycopg.connect(**owner.libpq(), autocommit=True) as session:
        session.execute(
            sql.SQL("alter database {} set timezone to 'Pacific/Kiritimati'").format(
                sql.Identifier(owner.dbname)
            )
        )


def store_schedule(
    cursor: psycopg.Cursor[Any], source_system: str, project_id: str, schedule: Schedule
) -> None:
    """Puts a new project with its calendars into the settings."""
    cursor.execute(
        "insert into settings.projects (source_system, project_id, timezone) values (%s, %s, %s)",
        (source_system, project_id, schedule.timezone),
    )
    cursor.executemany(
        "insert into settings.day_exceptions (source_system, project_id, day, as_weekday)"
        " values (%s, %s, %s, %s)",
        [(source_system, project_id, *exception) for exception in schedule.exceptions.items()],
    )
    for calendar in schedule.calendars:
        row = cursor.execute(
            "insert into settings.calendars (source_system, project_id, group_id,"
            " is_always_open, effective_from, effective_to)"
            " values (%s, %s, %s, %s, %s, %s) returning calendar_id",
            (
                source_system,
                project_id,
                calendar.group_id,
                calendar.is_always_open,
                calendar.first_day,
                calendar.end_day,
            ),
        ).fetchone()
        assert row is not None
        cursor.executemany(
            "insert into settings.calendar_windows values (%s, %s, %s, %s)",
            [
                (row[0], weekday, *window)
                for weekday, windows in calendar.windows.items()
                for window in windows
            ],
        )
