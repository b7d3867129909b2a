"""What a build of some models leaves of the views that were not among them."""

import shutil
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from jobs.build import build
from stageline.config import PROJECT_ROOT
from stageline.database import Connection, connect
from tests.warm_dbt import WarmDbt

PROJECT = """\
name: tiny
version: "1.0"
config-version: 2
profile: stageline
models:
  +schema: staging
"""

#: A view's query and the columns that it then has, before and after a change.
CHANGES = {
    "gains": (
        ("select 1 as n", {"n": "integer"}),
        ("select 1 as n, 2 as more", {"n": "integer", "more": "integer"}),
    ),
    "reorders": (
        ("select 1 as n, 2 as more", {"n": "integer", "more": "integer"}),
        ("select 2 as more, 1 as n", {"n": "integer", "more": "integer"}),
    ),
    "retypes": (
        ("select 1 as n, 2 as more", {"n": "integer", "more": "integer"}),
        ("select 1 as n, 'two' as more", {"n": "integer", "more": "text"}),
    ),
    "loses": (
        ("select 1 as n, 'two' as more", {"n": "integer", "more": "text"}),
        ("select cast(1 as bigint) as n", {"n": "bigint"}),
    ),
}


def views(owner: Connection) -> dict[str, str]:
    """Every view of the staging layer, and its query as the database sees it."""
    with psycopg.connect(**owner.libpq()) as session:
        return dict(
            session.execute(
                "select viewname, definition from pg_views where schemaname = 'staging'"
            )
        )


def test_views_outside_of_the_selection_stay(sample_database: Connection, dbt: WarmDbt) -> None:
    before = views(sample_database)
    assert {"stg_projects", "stg_leads", "stg_tickets"} <= set(before)
    dbt.run("+conversion_funnel")
    assert views(sample_database) == before


@pytest.mark.usefixtures("database")
def test_views_gain_change_and_lose_columns(tmp_path: Path) -> None:
    project = tmp_path / "tiny"
    shutil.copytree(PROJECT_ROOT / "macros", project / "macros")
    shutil.copy(PROJECT_ROOT / "profiles.yml", project)
    (project / "dbt_project.yml").write_text(PROJECT)
    (project / "models").mkdir()
    for name in CHANGES:
        below = "select n from {{ ref('above') }}".replace("above", name)
        (project / f"models/below_{name}.sql").write_text(below)

    def built(state: int, select: str | None = None) -> dict[str, dict[str, str]]:
        """Columns and their types after a build, by view; and what stands on each has a row."""
        for name, states in CHANGES.items():
            (project / f"models/{name}.sql").write_text(states[state][0])
        build(select, project=project)
        found: dict[str, dict[str, str]] = {name: {} for name in CHANGES}
        with connect("transformer") as session:
            for name in CHANGES:
                relation = sql.Identifier("staging", f"below_{name}")
                count = session.execute(sql.SQL("select count(*) from {}").format(relation))
                assert count.fetchone() == (1,), name
            for name, column, data_type in session.execute(
                "select table_name, column_name, data_type from information_schema.columns"
                " where table_schema = 'staging' and table_name = any(%s)",
                [[*CHANGES]],
            ):
                found[name][column] = data_type
        return found

    assert built(0) == {name: before[1] for name, (before, _) in CHANGES.items()}
    # What stands on the view that gains a column is not built again.
    selection = " ".join(name if name == "gains" else f"{name}+" for name in CHANGES)
    assert built(1, selection) == {name: after[1] for name, (_, after) in CHANGES.items()}
