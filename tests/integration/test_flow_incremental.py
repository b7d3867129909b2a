"""Flow models that are built by what changed hold the rows that a build from nothing gives."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql

from jobs.build import build
from stageline.config import PROJECT_ROOT
from stageline.database import connect
from tests.conftest import Sample

LAYERS = {"intermediate": "models/intermediate/flow", "kpis": "models/kpis/flow"}
SELECTION = " ".join(f"path:{folder}" for folder in LAYERS.values())
AS_OF = datetime(2026, 6, 1, 12, tzinfo=UTC)

#: (source system, project, kind of entity, number of entities)
ACCOUNTS = (("keycrm", "shop", "order", 30), ("pipedrive", "sales", "deal", 30))
STAGES = ("1", "2", "3", "4", "5", "6")
GROUPS = {"1": "new", "2": "new", "3": "work", "4": "work", "5": "done", "6": "cancelled"}
SUBSTAGES = ("LEAD.GENERATED", "LEAD.RFQ_RECEIVED", "ORDER.RECEIVED", "PAYMENT.RECEIVED")


def relations() -> list[str]:
    """Every flow model; int_flow_changes says what a run does, not what is."""
    return sorted(
        f"{schema}.{path.stem}"
        for schema, folder in LAYERS.items()
        for path in (PROJECT_ROOT / folder).glob("*.sql")
        if path.stem != "int_flow_changes"
    )


def contents() -> dict[str, list[str]]:
    """All rows of all flow models, in JSON; but when they were built."""
    with connect("transformer") as session:
        return {
            name: [
                text
                for (text,) in session.execute(
                    sql.SQL(
                        "select (to_jsonb(rows) - 'updated_at')::text from {} as rows order by 1"
                    ).format(sql.Identifier(*name.split(".")))
                )
            ]
            for name in relations()
        }


def count(relation: str) -> int:
    with connect("transformer") as session:
        query = sql.SQL("select count(*) from {}").format(sql.Identifier(*relation.split(".")))
        ((rows,),) = session.execute(query)
        return int(rows)


def missing_events() -> int:
    """Events of the log without a visit."""
    with connect("transformer") as session:
        ((rows,),) = session.execute(
            "select count(*) from raw.stage_events as events where not exists ("
            " select from intermediate.int_stage_intervals as visits"
            " where (visits.source_system, visits.entity_id, visits.stage_id)"
            " = (events.source_system, events.entity_id, events.stage_id)"
            " and visits.entered_at = date_trunc('second', events.entered_at))"
        )
        return int(rows)


class World:
    """What happens at random to a database: events, late or not, and changes of settings."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)  # noqa: S311 - no secret

    def instant(self) -> datetime:
        start = datetime(2026, 3, 1, tzinfo=UTC)
        return start + timedelta(seconds=self.random.randrange(80 * 24 * 3600))

    def event(self, session: psycopg.Connection[Any]) -> None:
        source, project, kind, count = self.random.choice(ACCOUNTS)
        stage = self.random.choice(STAGES)
        session.execute(
            "insert into raw.stage_events (source_system, project_id, entity_type, entity_id,"
            " pipeline_id, stage_id, stage_group_id, entered_at, delivery_id)"
            " values (%s, %s, %s, %s, %s, %s, %s, %s, %s) on conflict do nothing",
            (
                *(source, project, kind, str(self.random.randrange(count))),
                *(self.random.choice(["p1", "p2", None]), stage),
                GROUPS[stage] if self.random.random() < 0.5 else None,
                *(self.instant(), uuid4()),
            ),
        )

    def settings(self, session: psycopg.Connection[Any]) -> None:
        """A change of each kind of setting that flow models read."""
        some, at = self.random, self.instant()
        source, project, _, _ = some.choice(ACCOUNTS)
        stage, group = some.choice(STAGES), some.choice(["new", "work"])
        run = session.execute
        run(
            "insert into settings.stage_dictionary values (%s, %s, %s, null, 'x', null, %s)"
            " on conflict (source_system, project_id, stage_id)"
            " do update set group_id = excluded.group_id",
            (source, project, stage, some.choice(["new", "work", "done"])),
        )
        run(
            "insert into settings.stage_group_dictionary values (%s, %s, %s, 'x', %s)"
            " on conflict (source_system, project_id, group_id)"
            " do update set kind = excluded.kind",
            (source, project, "done", some.choice(["open", "done"])),
        )
        run(
            "delete from settings.calendars where source_system = %s and project_id = %s"
            " and group_id is not distinct from %s",
            (source, project, some.choice([group, None])),
        )
        run(
            "with made as (insert into settings.calendars (source_system, project_id, group_id)"
            " values (%s, %s, %s) on conflict do nothing returning calendar_id)"
            " insert into settings.calendar_windows select calendar_id, %s, %s, %s from made",
            (source, project, some.choice([group, None]), some.randrange(1, 8), 9 * 3600, 61200),
        )
        run(
            "insert into settings.day_exceptions values (%s, %s, %s, %s) on conflict do nothing",
            (source, project, at.date(), some.choice([None, 1])),
        )
        run(
            "update settings.stage_map_scd set sub_key = %s where map_id ="
            " (select map_id from settings.stage_map_scd order by random() limit 1)",
            (some.choice(SUBSTAGES),),
        )
        run(
            "insert into settings.sla_stage_rules"
            " (source_system, project_id, group_id, limit_seconds) values (%s, %s, %s, %s)"
            " on conflict do nothing",
            (source, project, group, some.randrange(3600, 360000)),
        )
        run(
            "insert into settings.waiting_stages (source_system, project_id, stage_id)"
            " values (%s, %s, %s) on conflict do nothing",
            (source, project, stage),
        )
        run(
            "insert into settings.order_overrides (source_system, project_id, order_id, is_urgent)"
            " values ('keycrm', 'shop', %s, true) on conflict do nothing",
            (str(some.randrange(30)),),
        )


def begin(session: psycopg.Connection[Any]) -> None:
    """Two projects in two zones; a published map of both, and a draft that maps one of them."""
    run = session.execute
    for (source, project, _, _), zone in zip(
        ACCOUNTS, ("Europe/Kyiv", "America/New_York"), strict=True
    ):
        run(
            "insert into settings.projects (source_system, project_id, timezone)"
            " values (%s, %s, %s)",
            (source, project, zone),
        )
    run(
        "insert into settings.report_versions (report_version, state, published_at)"
        " values (1, 'published', now()), (2, 'draft', null)"
    )
    for version, accounts in ((1, ACCOUNTS), (2, ACCOUNTS[:1])):
        for source, project, _, _ in accounts:
            for stage, key in zip(STAGES, SUBSTAGES * 2, strict=False):
                run(
                    "insert into settings.stage_map_scd"
                    " (report_version, source_system, project_id, stage_id, sub_key)"
                    " values (%s, %s, %s, %s, %s)",
                    (version, source, project, stage, key),
                )
    run(
        "insert into settings.cycle_rules (source_system, project_id, title, start_group_id,"
        " end_group_id, is_default) values ('keycrm', 'shop', 'to done', 'new', 'done', true)"
    )


@contextmanager
def at_work() -> Iterator[psycopg.Connection[Any]]:
    """A session that writes and commits at the end of the block."""
    with connect("owner") as session:
        yield session


def run_models(sample: Sample, *, full_refresh: bool = False) -> None:
    build(
        SELECTION,
        command="run",
        full_refresh=full_refresh,
        dbt_vars={"as_of": AS_OF.isoformat()},
        target_path=sample.target_path.with_name("flow_target"),
    )


@pytest.mark.usefixtures("sample_database")
def test_runs_by_what_changed_end_where_a_build_from_nothing_ends(sample: Sample) -> None:
    world = World(20260621)
    with at_work() as session:
        begin(session)
        for _ in range(600):
            world.event(session)
    run_models(sample)
    first = contents()

    with connect("owner") as late, at_work() as session:
        # Written now, committed only after a run that saw later transactions.
        for _ in range(20):
            world.event(late)
        for _ in range(40):
            world.event(session)
        session.commit()
        run_models(sample)
        assert 0 < count("intermediate.int_flow_changes") < 60  # not all of them
        late.commit()
    run_models(sample)
    assert missing_events() == 0

    with at_work() as session:
        for _ in range(6):
            world.settings(session)
            world.event(session)
    run_models(sample)
    with at_work() as session:
        session.execute(
            "update settings.report_versions set state = 'published', published_at = now()"
            " where report_version = 2"
        )
        world.settings(session)
    run_models(sample)

    by_changes = contents()
    run_models(sample, full_refresh=True)
    from_nothing = contents()
    for name, rows in from_nothing.items():
        assert by_changes[name] == rows, name
    assert from_nothing != first
