"""The flow tables on thousands of random histories, held against a second computation."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg.rows import dict_row

from stageline import config
from stageline.database import Connection
from tests.conftest import DATABASE, TEMPLATE, TestServer, _clone
from tests.flow_database import keep_odd_clock
from tests.flow_oracle import GRAIN, Flow, Row, Table, World
from tests.flow_worlds import AS_OF, PUBLISHED, random_world
from tests.warm_dbt import WarmDbt

SEED = 4
VARIABLES = {"as_of": AS_OF.isoformat()}

#: Columns that say where a row comes from and when it was built.
NOT_COMPARED = {"delivery_id", "record_origin", "calendar_scope_id", "updated_at"}

#: How many differences of a table a failure shows.
SHOWN = 12


@dataclass(frozen=True)
class Built:
    """A database in which the world is loaded and built."""

    owner: Connection
    world: World

    def table(self, name: str) -> list[dict[str, Any]]:
        """The rows of a table."""
        schema = "intermediate" if name.startswith("int_") else "kpis"
        with psycopg.connect(**self.owner.libpq(), row_factory=dict_row) as session:
            session.execute("set timezone to 'UTC'")
            return session.execute(
                sql.SQL("select * from {}").format(sql.Identifier(schema, name))
            ).fetchall()


def _insert(session: psycopg.Connection[Any], table: str, rows: list[Row]) -> None:
    schema, _, name = table.partition(".")
    columns = list(rows[0])
    statement = sql.SQL("copy {} ({}) from stdin").format(
        sql.Identifier(schema, name), sql.SQL(", ").join(map(sql.Identifier, columns))
    )
    with session.cursor().copy(statement) as copy:
        for row in rows:
            copy.write_row([row[column] for column in columns])


def load(owner: Connection, world: World) -> None:
    """Puts the world where loaders, the receiver and operators would."""
    with psycopg.connect(**owner.libpq()) as session:
        for project in world.projects:
            source_system, project_id = project.key
            key = {"source_system": source_system, "project_id": project_id}
            _insert(session, "settings.projects", [key | {"timezone": project.timezone}])
            for group, kind in project.groups.items():
                row = key | {"group_id": group, "name": group, "kind": kind}
                _insert(session, "settings.stage_group_dictionary", [row])
            for stage_id, stage in project.stages.items():
                row = key | {"stage_id": stage_id, "name": stage_id, **vars(stage)}
                _insert(session, "settings.stage_dictionary", [row])
            for day, weekday in project.exceptions.items():
                _insert(
                    session, "settings.day_exceptions", [key | {"day": day, "as_weekday": weekday}]
                )
            for group_id, calendars in project.calendars.items():
                for calendar in calendars:
                    found = session.execute(
                        "insert into settings.calendars (source_system, project_id, group_id,"
                        " effective_from, effective_to) values (%s, %s, %s, %s, %s)"
                        " returning calendar_id",
                        (*project.key, group_id, calendar.effective_from, calendar.effective_to),
                    ).fetchone()
                    assert found
                    windows = [
                        {
                            "calendar_id": found[0],
                            "weekday": weekday,
                            "opens_second": opens,
                            "closes_second": closes,
                        }
                        for weekday, stretches in calendar.windows.items()
                        for opens, closes in stretches
                    ]
                    _insert(session, "settings.calendar_windows", windows)
        session.execute(
            "insert into settings.report_versions"
            " (report_version, state, published_at, retired_at)"
            " select n, case when n <= %(last)s then 'published' when n = 3 then 'draft'"
            " else 'retired' end, case when n != 3 then now() end, case when n = 4 then now() end"
            " from generate_series(1, 4) as n",
            {"last": max(PUBLISHED)},
        )
        _insert(session, "settings.stage_map_scd", [_map_row(row) for row in world.stage_map])
        entity = ("source_system", "project_id", "entity_type", "entity_id")
        _insert(
            session,
            "raw.lifecycle_events",
            [
                dict(zip(entity, (*project, kind, entity_id), strict=True))
                | {"event": event, "occurred_at": at, "delivery_id": _NO_DELIVERY}
                for project, kind, entity_id, event, at in world.deletions
            ],
        )
        told: dict[bool, list[Row]] = {True: [], False: []}
        for event in world.events:
            key = (*event.project, event.entity_type, event.entity_id)
            told[event.delivery_id is not None].append(
                dict(zip(entity, key, strict=True))
                | {
                    "pipeline_id": event.pipeline_id,
                    "stage_id": event.stage_id,
                    "stage_group_id": event.group_id,
                    "entered_at": event.entered_at,
                }
                | (
                    {
                        "previous_stage_id": event.previous_stage_id,
                        "entity_created_at": event.created_at,
                        "delivery_id": event.delivery_id,
                        "ingested_at": event.ingested_at,
                    }
                    if event.delivery_id
                    else {"sequence": event.sequence}
                )
            )
        _insert(session, "raw.stage_events", told[True])
        _insert(session, "raw_files.stage_events", told[False])


_NO_DELIVERY = "00000000-0000-0000-0000-000000000000"


def _map_row(row: Any) -> Row:
    columns = dict(vars(row))
    source_system, project_id = columns.pop("project")
    return {"source_system": source_system, "project_id": project_id, **columns}


@pytest.fixture(scope="module")
def built(server: TestServer, dbt: WarmDbt, short_folder: Path) -> Iterator[Built]:
    """The world in a database, built once."""
    folder = short_folder / "flow_oracle"
    folder.mkdir()
    world = random_world(SEED)
    with (
        pytest.MonkeyPatch.context() as patch,
        _clone(server, TEMPLATE, folder, patch, DATABASE) as owner,
    ):
        keep_odd_clock(owner)
        load(owner, world)
        wanted = [f"+{name}" for name in GRAIN]
        dbt.run(*wanted, variables=VARIABLES)
        found = dbt.test(
            *wanted,
            exclude="test_type:unit test_type:singular path:models/staging path:seeds",
            variables=VARIABLES,
        )
        assert len(found) > 30
        assert set(found.values()) <= {"pass", "warn"}
        yield Built(owner, world)
    config.settings.cache_clear()


@pytest.fixture(scope="module")
def expected(built: Built) -> Mapping[str, Table]:
    """The tables as they should be."""
    return Flow(built.world).tables()


@pytest.mark.parametrize("name", GRAIN)
def test_every_cell_is_what_its_definition_says(
    name: str, built: Built, expected: Mapping[str, Table]
) -> None:
    grain = GRAIN[name]
    rows = {tuple(row[column] for column in grain): row for row in built.table(name)}
    table = expected[name]
    assert table
    lines = [f"{key}: row is missing" for key in table.keys() - rows.keys()]
    lines += [f"{key}: row is not expected" for key in rows.keys() - table.keys()]
    for key in table.keys() & rows.keys():
        stated = {c: v for c, v in rows[key].items() if c not in (*grain, *NOT_COMPARED)}
        assert not stated.keys() ^ table[key].keys()
        lines += [
            f"{key} {column}: expected {table[key][column]}, got {value}"
            for column, value in stated.items()
            if value != table[key][column]
        ]
    if lines:
        pytest.fail("\n".join([f"{name}: {len(lines)} differences", *lines[:SHOWN]]), pytrace=False)


def test_the_histories_are_as_ugly_as_they_are_meant_to_be(
    expected: Mapping[str, Table],
) -> None:
    """Whatever the tables agree on has to occur."""
    journeys = list(expected["deal_metrics"].values())
    complete = [row for row in journeys if row["excluded_reason"] is None]
    spans = list(expected["major_stage_durations"].values())
    assert len(complete) > 200
    assert any(row["flow_efficiency_pct"] and row["flow_efficiency_pct"] > 100 for row in complete)
    assert any(row["e2e_seconds"] == 0 for row in complete)
    assert any(row["excluded_reason"] == "impossible duration" for row in journeys)
    assert sum(row["excluded_reason"] == "impossible duration" for row in spans) > 10
    assert max(row["entry_count"] for row in spans) > 2
    assert any(key[-1] == 0 for key in expected["int_stage_intervals"])
    assert any(row["impossible_durations"] for row in expected["flow_stage_kpis"].values())
    assert any(row["finished"] > 1 for row in expected["flow_throughput"].values())


def test_work_in_progress_adds_up_to_the_time_of_each_deal(built: Built) -> None:
    """The integral of work in progress over all days = the sum of the deals' own times in it."""
    with psycopg.connect(**built.owner.libpq()) as session:
        days = session.execute(
            "select report_version, project_id, sum(wip_seconds) from kpis.flow_throughput"
            " group by report_version, project_id order by report_version, project_id"
        ).fetchall()
        deals = session.execute(
            "select report_version, project_id, sum("
            " floor(extract(epoch from coalesce(finished_at, %(as_of)s)))"
            " - floor(extract(epoch from started_at)))"
            " from kpis.deal_metrics"
            " where started_at between '2000-01-01' and %(as_of)s"
            " and coalesce(finished_at, started_at) < '2100-01-01'"
            " group by report_version, project_id order by report_version, project_id",
            {"as_of": AS_OF},
        ).fetchall()
    assert days
    assert days == deals
