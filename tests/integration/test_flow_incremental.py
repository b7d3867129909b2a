"""Flow models that are built by what changed hold the rows that a build from nothing gives."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import LiteralString

import pytest
from psycopg import sql

from stageline.config import PROJECT_ROOT
from stageline.database import connect
from tests.flow_changes import AS_OF, ENTITIES, LAST, Session, World
from tests.warm_dbt import WarmDbt

LAYERS = {"intermediate": "models/intermediate/flow", "kpis": "models/kpis/flow"}
#: Relations whose rows are too many to be read one by one or after each run; none has a project.
BULKY = {"intermediate.int_working_calendar", "intermediate.int_working_days"}

#: Rows of a relation and a project, as text.
Contents = dict[tuple[str, str], list[str]]


#: Say what a run does, not what is.
OF_RUNS = {"int_flow_changes", "int_flow_states"}


def relations() -> list[str]:
    """Every flow model."""
    return sorted(
        f"{schema}.{path.stem}"
        for schema, folder in LAYERS.items()
        for path in (PROJECT_ROOT / folder).glob("*.sql")
        if path.stem not in OF_RUNS
    )


def contents() -> Contents:
    """All rows of the flow models but the bulky ones, in JSON; but when they were built."""
    return read(
        [name for name in relations() if name not in BULKY],
        "select coalesce(to_jsonb(rows) ->> 'project_id', ''),"
        " (to_jsonb(rows) - 'updated_at')::text from {} as rows order by 2",
    )


def bulk() -> Contents:
    """How many rows the bulky ones have, and their sum."""
    return read(
        sorted(BULKY),
        "select '', count(*) || ':' || sum(hashtextextended(rows::text, 0)) from {} as rows",
    )


def read(names: Sequence[str], query: LiteralString) -> Contents:
    """Project and text of the rows that ``query`` gives of each relation."""
    found: Contents = defaultdict(list)
    with connect("transformer") as session:
        for name in names:
            relation = sql.Identifier(*name.split("."))
            for project, text in session.execute(sql.SQL(query).format(relation)):
                found[name, project].append(text)
    return found


def differing(one: Contents, other: Contents) -> set[tuple[str, str]]:
    """Relations and projects whose rows differ."""
    return {key for key in one.keys() | other.keys() if one.get(key) != other.get(key)}


def rebuilt() -> Mapping[str, int]:
    """How many entities of each project the last run built anew."""
    with connect("transformer") as session:
        return dict(
            session.execute(
                "select project_id, count(*) from intermediate.int_flow_changes group by project_id"
            ).fetchall()
        )


def unseen_events() -> int:
    """Events of the log without a visit."""
    with connect("transformer") as session:
        ((rows,),) = session.execute(
            "select count(*) from raw.stage_events as events"
            " inner join settings.projects using (source_system, project_id)"
            " where is_active and not exists ("
            " select from intermediate.int_stage_intervals as visits"
            " where visits.delivery_id = events.delivery_id::text)"
        )
        return int(rows)


def miscounted_stages() -> int:
    """Stages with another number of visits than is kept, or a later one than is known of."""
    with connect("transformer") as session:
        ((rows,),) = session.execute(
            "select count(*) from (select source_system, project_id,"
            " pipeline_id, stage_id, sum(visits) as visits, max(latest_entered_at) as known,"
            " max(entered_at) as latest from (select source_system, project_id, pipeline_id,"
            " stage_id, visits, latest_entered_at, null as entered_at from intermediate.flow_stages"
            " union all select source_system, project_id, pipeline_id, stage_id, -1, null,"
            " entered_at from intermediate.int_stage_intervals) as counts group by 1, 2, 3, 4)"
            " as stages where visits != 0 or known is null or latest > known"
        )
        return int(rows)


@dataclass
class Flow:
    """The models under test, and what they are made for."""

    dbt: WarmDbt
    as_of: datetime = AS_OF

    def run(self, *, full_refresh: bool = False) -> Contents:
        """Runs all of them, and reads what they hold, if that is not bulky."""
        self.dbt.run(
            *(f"path:{folder}" for folder in LAYERS.values()),
            variables={"as_of": self.as_of.isoformat()},
            full_refresh=full_refresh,
        )
        assert miscounted_stages() == 0
        return contents()


def happen(changes: Mapping[str, Callable[[Session, str], None]]) -> None:
    """Each change in its own project, in one transaction."""
    with connect("owner") as session:
        for project, change in changes.items():
            change(session, project)


def restore_elsewhere() -> None:
    """As if the database were a dump, restored to a server that has counted fewer transactions."""
    with connect("owner") as session:
        for relation, column in (
            ("intermediate.flow_positions", "position"),
            ("raw.stage_events", "ingested_xid"),
            ("raw.lifecycle_events", "ingested_xid"),
            ("raw_keycrm.orders", "fetched_xid"),
            ("raw_pipedrive.deals", "fetched_xid"),
            ("raw_pipedrive.deal_changes", "fetched_xid"),
            ("settings.audit_log", "changed_xid"),
        ):
            session.execute(
                sql.SQL(
                    "update {} set {column} = (({column}::text::bigint + 10^9)::text)::xid8"
                ).format(sql.Identifier(*relation.split(".")), column=sql.Identifier(column))
            )
        session.execute("update intermediate.flow_basis set basis = 'another server'")


@pytest.mark.usefixtures("sample_database")
def test_runs_by_what_changed_end_where_a_build_from_nothing_ends(dbt: WarmDbt) -> None:
    flow = Flow(dbt)
    world = World(20260621)
    everything = ENTITIES * len(world.projects)
    touched: set[str] = set()
    with connect("owner") as session:
        world.begin(session)
    flow.run()
    with connect("owner") as session:
        session.execute(
            "update settings.report_versions set state = 'published', published_at = now()"
            " where report_version = 2"
        )
    rows = flow.run()

    def run_again() -> Contents:
        """Runs the models, and notes in which projects they hold other rows than before."""
        now = flow.run()
        touched.update(project for _, project in differing(rows, now))
        return now

    happen(world.settings)
    rows = run_again()
    assert "untouched" not in rebuilt()

    flow.as_of += timedelta(days=14)
    rows = run_again()

    with connect("owner") as late:
        # Written now, committed only after a run that saw later transactions.
        world.log_entries(late, "entries")
        happen(world.settings)
        happen(world.log)
        rows = run_again()
        assert unseen_events() == 0
    assert unseen_events() > 0
    flow.as_of -= timedelta(days=10)
    rows = run_again()
    assert unseen_events() == 0
    assert sum(rebuilt().values()) < everything

    rows |= bulk()
    from_nothing = flow.run(full_refresh=True) | bulk()
    assert differing(rows, from_nothing) == set()
    assert touched >= {*world.log, *world.settings}

    restore_elsewhere()
    happen(world.log)
    flow.run()
    assert unseen_events() == 0
    happen(world.log)
    rows = flow.run()
    assert unseen_events() == 0
    assert sum(rebuilt().values()) < everything / 2

    with connect("transformer") as session:
        session.execute(
            "update reference.canonical_stage_boundaries set exit_sub_key = entry_sub_key"
            " where major_key = 'LEAD'"
        )
    by_changes = flow.run() | bulk()
    assert "kpis.deal_stage_timeline" in {name for name, _ in differing(rows, by_changes)}
    assert differing(by_changes, flow.run(full_refresh=True) | bulk()) == set()


def behind(session: Session) -> set[str]:
    """Models of which something is to be built, also for what ``session`` has not committed."""
    query = "select model from intermediate.int_flow_states where is_behind"
    with connect("owner") as later:
        # A transaction is looked at once a later one has ended.
        later.execute("select pg_current_xact_id()")
    return {name for (name,) in session.execute(query).fetchall()}


@pytest.mark.usefixtures("sample_database")
def test_whatever_would_change_a_flow_model_is_told_before_it_is_built(dbt: WarmDbt) -> None:
    world = World(20261122)
    visited = LAST + timedelta(days=10)
    with connect("owner") as session:
        world.begin(session)
        session.execute(
            "insert into raw_files.stage_events"
            " (source_system, project_id, entity_type, entity_id, stage_id, entered_at)"
            " values ('keycrm', 'untouched', 'order', '1', '1', %s)",
            [visited],
        )
    dbt.run(*(f"path:{folder}" for folder in LAYERS.values()))

    with connect("transformer") as session:
        models = {
            name for (name,) in session.execute("select model from intermediate.int_flow_states")
        }
    texts = {
        path.stem: path.read_text()
        for folder in LAYERS.values()
        for path in (PROJECT_ROOT / folder).glob("*.sql")
    }
    assert models == {"int_flow_changes", "int_stage_map"} | {
        name for name, text in texts.items() if "materialized=flow_materialized()" in text
    }

    of_webhooks = {"webhook_stats"}
    of_entities = models - of_webhooks

    def told(*changes: Callable[[Session], object]) -> set[str]:
        """What is behind after changes, which are then undone."""
        with connect("owner") as session:
            for change in changes:
                change(session)
            found = behind(session)
            session.rollback()
        return found

    def run(statement: LiteralString, *values: object) -> Callable[[Session], object]:
        return lambda session: session.execute(statement, values)

    def tried(change: Callable[[Session, str], None], project: str, session: Session) -> None:
        """Until something is written: what happens at random may be what is there."""
        for _ in range(20):
            change(session, project)
            if behind(session):
                return

    with connect("jobs") as session:
        assert behind(session) == set()
    for project, change in (world.log | world.settings).items():
        assert told(partial(tried, change, project)) == of_entities, project
    # What lay ahead when they were built, and has come to pass.
    built_for = "update intermediate.flow_positions set as_of = %s"
    assert told(run(built_for, visited - timedelta(seconds=1))) == of_entities
    assert told(run(built_for, visited + timedelta(seconds=1))) == set()
    for change_of_basis in (
        "update intermediate.flow_basis set basis = 'another server'",
        "update reference.canonical_stage_boundaries set exit_sub_key = entry_sub_key"
        " where major_key = 'LEAD'",
    ):
        assert told(run(change_of_basis)) == of_entities
    refused = "insert into raw.refusals (refused_at, reason) values (now(), 'unknown')"
    assert told(run(refused)) == of_webhooks
    # Of no deal and no order.
    assert told(run("update raw_files.leads set created_at = now()")) == set()
