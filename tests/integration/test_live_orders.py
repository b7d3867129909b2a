"""The live views hold, at any moment, what a run of the models would give at that moment."""

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql
from psycopg.rows import dict_row

from stageline import config
from stageline.database import Role, connect
from tests.conftest import DATABASE, Sample, _clone
from tests.integration.test_orders_oracle import ASIDE, GRAIN, load
from tests.orders_oracle import Table, tables
from tests.orders_world import AS_OF, SOURCE, Event, Order, Project, world
from tests.warm_dbt import WarmDbt

VIEWS = ("orders_current", "order_status_intervals")
MODELS = ("path:models/intermediate/flow", *VIEWS)
SEED, ORDERS, ROUNDS = 44, 500, 4


def rows(view: str, role: Role = "reader") -> Table:
    """A view as one may read it, by its key."""
    with connect(role) as session:
        cursor = session.cursor(row_factory=dict_row)
        found = cursor.execute(
            sql.SQL("select * from {} where source_system = %s").format(
                sql.Identifier("kpis", view)
            ),
            (SOURCE,),
        ).fetchall()
    keys = {tuple(row[column] for column in GRAIN[view]) for row in found}
    assert len(keys) == len(found)
    return {
        tuple(row[column] for column in GRAIN[view]): {
            column: value
            for column, value in row.items()
            if column not in GRAIN[view] and column not in ASIDE
        }
        for row in found
    }


def differences(found: Table, expected: Table) -> list[str]:
    """What is not the same, in words."""
    return [f"{key}: only in one" for key in sorted(found.keys() ^ expected.keys(), key=str)] + [
        f"{key} {column}: expected {expected[key][column]}, got {value}"
        for key in found.keys() & expected.keys()
        for column, value in found[key].items()
        if value != expected[key][column]
    ]


def land(
    session: psycopg.Connection[Any], project: str, order: str, event: Event, source: str = SOURCE
) -> None:
    """Writes an event as the receiver does, which knows it again; or as a file's loader does."""
    place = (source, project, order, event.stage, event.group, event.entered_at)
    if event.delivery:
        session.execute(
            "insert into raw.stage_events (source_system, project_id, entity_type, entity_id,"
            " stage_id, stage_group_id, entered_at, previous_stage_id, entity_created_at,"
            " delivery_id, ingested_at) values (%s, %s, 'order', %s, %s, %s, %s, %s, %s, %s, %s)"
            " on conflict do nothing",
            (*place, event.came_from, event.created_at, event.delivery, event.landed_at),
        )
    else:
        session.execute(
            "insert into raw_files.stage_events (source_system, project_id, entity_type,"
            " entity_id, stage_id, stage_group_id, entered_at)"
            " values (%s, %s, 'order', %s, %s, %s, %s) on conflict do nothing",
            place,
        )


@dataclass
class Log:
    """A random world of which some has landed, and the rest lies ahead."""

    landed: list[Project]
    ahead: list[tuple[Project, Order, list[Event]]]
    random: random.Random

    @classmethod
    def begun(cls, seed: int, orders: int) -> "Log":
        """About half of the events landed; some orders are not known at all."""
        chance = random.Random(seed)  # noqa: S311 - the same in every run
        projects, ahead = world(seed, orders), []
        for project in projects:
            for order in project.orders:
                chance.shuffle(order.events)  # what lies ahead is late, as often as not
                cut = chance.randrange(len(order.events) + 1)
                order.events, rest = order.events[:cut], order.events[cut:]
                if rest:
                    ahead.append((project, order, rest))
        return cls(projects, ahead, chance)

    def expected(self) -> dict[str, Table]:
        """What there should be now, by the definitions."""
        known = [
            replace(project, orders=[order for order in project.orders if order.events])
            for project in self.landed
        ]
        return tables(known, AS_OF)

    def go_on(self, session: psycopg.Connection[Any]) -> None:
        """Something of everything that happens to orders, at random."""
        for project, order, events in self.random.sample(self.ahead, min(20, len(self.ahead))):
            for _ in range(self.random.randint(1, len(events)) if events else 0):
                order.events.append(events.pop())
                land(session, project.project_id, order.order_id, order.events[-1])
        project = self.random.choice(self.landed[:3])
        known = [order for order in project.orders if order.events and not order.is_gone]
        again, deleted, gone, bought = self.random.sample(known, 4)
        land(session, project.project_id, again.order_id, again.events[0])
        for order, happened in ((deleted, "deleted"), (again, "restored")):
            session.execute(
                "insert into raw.lifecycle_events (source_system, project_id, entity_type,"
                " entity_id, event, occurred_at, delivery_id)"
                " values (%s, %s, 'order', %s, %s, %s, %s) on conflict do nothing",
                (SOURCE, project.project_id, order.order_id, happened, AS_OF, uuid4()),
            )
        session.execute(
            "insert into raw_keycrm.order_items (project_id, order_id, position, sku)"
            " values (%s, %s, %s, 'EXPRESS')",
            (project.project_id, bought.order_id, len(bought.items) + 1),
        )
        session.execute(
            "update raw_keycrm.orders set fetched_xid = pg_current_xact_id(),"
            " is_gone = order_id = %(gone)s"
            " where project_id = %(project)s and order_id in (%(gone)s, %(bought)s)",
            {"project": project.project_id, "gone": gone.order_id, "bought": bought.order_id},
        )
        deleted.is_gone = gone.is_gone = True
        bought.items.append({"sku": "EXPRESS", "offer_id": None, "product_id": None})


@dataclass(frozen=True)
class Live:
    """A database that was built when half of a log had landed, and a way to build it again."""

    log: Log
    dbt: WarmDbt

    def run_models(self, *select: str, full_refresh: bool = False) -> None:
        """dbt, as of the world's instant."""
        self.dbt.run(*select, variables={"as_of": AS_OF.isoformat()}, full_refresh=full_refresh)


@pytest.fixture(scope="module", autouse=True)
def sample_here(sample: Sample, short_folder: Path) -> Iterator[None]:
    """A copy of the sample database, built without an instant, for all tests here."""
    folder = short_folder / "live_orders"
    folder.mkdir()
    with (
        pytest.MonkeyPatch.context() as patch,
        _clone(sample.server, sample.owner.dbname, folder, patch, DATABASE),
    ):
        yield
    config.settings.cache_clear()


@pytest.fixture(scope="module")
def live(dbt: WarmDbt) -> Live:
    """The same database with a world in it; each test takes it as the one before left it."""
    found = Live(Log.begun(SEED, ORDERS), dbt)
    load(found.log.landed)
    with connect("owner") as session:
        session.execute("analyze raw.stage_events")
    found.run_models(*MODELS)
    return found


def test_clocks_run_up_to_the_moment_of_reading() -> None:
    now = datetime.now(UTC)
    with connect("owner") as session:
        for order in ("stays", "goes"):
            event = Event("1", None, now - timedelta(hours=1), delivery=str(uuid4()), landed_at=now)
            land(session, "p", order, event, "shop")
    with connect("reader") as session:

        def read() -> dict[str, tuple[int, datetime]]:
            return {
                order: (seconds, at)
                for order, seconds, at in session.execute(
                    "select order_id, stage_seconds, updated_at from kpis.orders_current"
                    " where source_system = 'shop'"
                )
            }

        first = read()
        assert first.keys() == {"stays", "goes"}
        with connect("owner") as other:
            other.execute(
                "insert into raw.lifecycle_events (source_system, project_id, entity_type,"
                " entity_id, event, occurred_at, delivery_id)"
                " values ('shop', 'p', 'order', 'goes', 'deleted', %s, %s)",
                (datetime.now(UTC) + timedelta(seconds=30), uuid4()),  # by a clock that is ahead
            )
        # The transaction is still the same one; time goes on all the same.
        session.execute("select pg_sleep(1.1)")
        second = read()
    assert second.keys() == {"stays"}
    for seconds, at in (first["stays"], second["stays"]):
        assert seconds == int(at.timestamp()) - int((now - timedelta(hours=1)).timestamp())
    assert second["stays"][0] > first["stays"][0]


def reads(session: psycopg.Connection[Any]) -> dict[str, int]:
    """Rows that this transaction fetched, by table of raw data."""
    return dict(
        session.execute(
            "select schemaname || '.' || relname, seq_tup_read + coalesce(idx_tup_fetch, 0)"
            " from pg_stat_xact_all_tables where schemaname like 'raw%'"
            " and seq_tup_read + coalesce(idx_tup_fetch, 0) > 0"
        ).fetchall()
    )


def test_without_news_no_row_of_the_log_is_read(live: Live) -> None:
    expected = live.log.expected()
    for view in VIEWS:
        assert differences(rows(view), expected[view]) == []
    with connect("reader") as session:
        for view in VIEWS:
            session.execute(sql.SQL("select * from {}").format(sql.Identifier("kpis", view)))
        assert reads(session) == {}


def test_what_is_committed_is_there_at_once(live: Live) -> None:
    for _ in range(ROUNDS):
        with connect("owner") as session:
            live.log.go_on(session)
        expected = live.log.expected()
        for view in VIEWS:
            assert differences(rows(view), expected[view]) == []


def test_a_read_costs_what_it_asks_for_of_the_tail(live: Live) -> None:
    in_tail = "select entity_id from intermediate.int_orders_written() where project_id = 'kyiv'"
    with connect("transformer") as session:
        tail = {order for (order,) in session.execute(in_tail)}
    quiet = next(o.order_id for o in live.log.landed[0].orders if o.order_id not in tail)
    with connect("reader") as session:
        session.execute(
            "select * from kpis.orders_current"
            " where source_system = %s and project_id = 'kyiv' and order_id = %s",
            (SOURCE, quiet),
        )
        few = reads(session)["raw.stage_events"]
    with connect("owner") as session:
        ((whole, tail_rows),) = session.execute(
            "select count(*), count(*) filter (where (project_id, entity_id) in"
            " (select project_id, entity_id from intermediate.int_orders_written()))"
            " from raw.stage_events where source_system = %s",
            (SOURCE,),
        )
    with connect("reader") as session:
        session.execute("select * from kpis.orders_current")
        all_of_it = reads(session)["raw.stage_events"]
    assert few < all_of_it <= 4 * tail_rows < 4 * whole


def test_a_run_gives_what_was_there_already(live: Live) -> None:
    late = Event("3", "2", AS_OF - timedelta(days=1), delivery=str(uuid4()), landed_at=AS_OF)
    project = live.log.landed[0]
    order = next(order for order in project.orders if order.events and not order.is_gone)
    before = {view: rows(view) for view in VIEWS}
    with connect("owner") as session:
        # It began before the run, and commits after it.
        land(session, project.project_id, order.order_id, late)
        live.run_models(*MODELS)
        for view in VIEWS:
            assert differences(rows(view), before[view]) == []
        session.commit()
    order.events.append(late)
    expected = live.log.expected()
    for view in VIEWS:
        assert differences(rows(view), expected[view]) == []
    assert rows("orders_current") != before["orders_current"]


def test_models_that_are_built_anew_keep_their_views_live(live: Live) -> None:
    live.run_models(
        *("int_order_visits", "int_order_group_visits", "int_order_cycles", "int_orders"),
        *VIEWS,
        full_refresh=True,
    )
    with connect("owner") as session:
        live.log.go_on(session)
    expected = live.log.expected()
    for view in VIEWS:
        assert differences(rows(view), expected[view]) == []


def test_what_lands_after_a_restore_is_there_before_the_first_build(live: Live) -> None:
    with connect("owner") as session:
        # As a dump of another server leaves it: positions are ahead of all that is written here.
        session.execute("update intermediate.flow_positions set position = '9999999999'")
        session.execute("update intermediate.flow_basis set basis = 'another ' || basis")
        live.log.go_on(session)
    expected = live.log.expected()
    for view in VIEWS:
        assert differences(rows(view), expected[view]) == []


@pytest.mark.usefixtures("live")
def test_no_one_but_a_reader_of_the_views_has_the_functions() -> None:
    with connect("owner") as session:
        found = session.execute(
            "select proname, array(select roles.rolname::text from pg_roles as roles"
            " where roles.rolname ~ '^stageline_' and roles.rolname != 'stageline_owner'"
            " and has_function_privilege(roles.oid, pg_proc.oid, 'execute') order by 1),"
            " array_to_string(proconfig, ',') ~ 'search_path=pg_catalog, pg_temp'"
            " from pg_proc where pronamespace = 'intermediate'::regnamespace order by 1"
        ).fetchall()
    callers = ["stageline_reader", "stageline_transformer"]
    assert found == [
        (f"{model}_{suffix}", callers, True)
        for model in ("int_order_visits", "int_orders")
        for suffix in ("tail", "written")
    ]
    with connect("reader") as session, pytest.raises(psycopg.errors.InsufficientPrivilege):
        session.execute("select * from intermediate.int_orders_tail()")
