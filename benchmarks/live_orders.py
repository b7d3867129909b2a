"""Reads of the live view of orders, over the same reads of a table that holds the same rows.

One order, and a board of about 500 open orders of a project; while nothing was written since the
last run, and while 50 orders were, ten of them on the board. An order is read that was not written
to, as most are; below it, one that was. Live and plain reads alternate, so that a busy machine is
busy for both. `prepared` is what drivers and pools do with a query that comes again; `planned` is a
query that the server sees for the first time, in a session that has read before. The first read of
a session, which plans the tail as well, stands apart.

Run it with `make bench`, or with other sizes: python benchmarks/live_orders.py --events 200000
"""

import argparse
import random
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import psycopg
from flow import EVENTS, RULES, start

#: A project of the size of a board, with copies of orders: of 500 of these, the status is open.
BOARD = """
insert into settings.projects (source_system, project_id, timezone)
values ('keycrm', 'board', 'Europe/Kyiv');
insert into settings.stage_group_dictionary (source_system, project_id, group_id, name, kind)
select source_system, 'board', group_id, name, kind
from settings.stage_group_dictionary
where source_system = 'keycrm' and project_id = 'kyiv';
insert into raw.stage_events (
    source_system, project_id, entity_type, entity_id, stage_id, stage_group_id, entered_at,
    entity_created_at, delivery_id, ingested_at
)
select
    source_system, 'board', entity_type, entity_id, stage_id, stage_group_id, entered_at,
    entity_created_at, gen_random_uuid(), ingested_at
from raw.stage_events
where source_system = 'keycrm' and project_id = 'kyiv' and entity_id::bigint <= 2250
"""
ITEMS = """
insert into raw_keycrm.orders (project_id, order_id, fetched_at)
select distinct project_id, entity_id, now() from raw.stage_events where entity_type = 'order';
insert into raw_keycrm.order_items (project_id, order_id, position, sku)
select project_id, order_id, 1, case when hashtext(order_id) % 10 = 0 then 'EXPRESS' end
from raw_keycrm.orders
"""
NEWS = """
insert into raw.stage_events (
    source_system, project_id, entity_type, entity_id, stage_id, stage_group_id, entered_at,
    delivery_id
)
select source_system, project_id, 'order', order_id, '2', '3', now(), gen_random_uuid()
from bench.orders_current
where (project_id, order_id) in (
    (select project_id, order_id from bench.orders_current where project_id = 'board' limit 10)
    union all
    (select project_id, order_id from bench.orders_current where project_id = 'kyiv' limit 40)
)
"""
PLAIN = """
drop table if exists bench.orders_current;
create table bench.orders_current as select * from kpis.orders_current;
create unique index on bench.orders_current (source_system, project_id, order_id);
create index on bench.orders_current (source_system, project_id, last_status_group_id);
grant usage on schema bench to stageline_reader;
grant select on bench.orders_current to stageline_reader;
analyze bench.orders_current
"""
ONE = (
    "select * from {} where source_system = 'keycrm' and project_id = %(project)s"
    " and order_id = %(order)s"
)
OPEN = (
    "select * from {} where source_system = 'keycrm' and project_id = 'board'"
    " and last_status_group_kind = 'open'"
)


def build(events: int, folder: Path) -> None:
    """A log of so many events, and the models of orders built on it."""
    from jobs import build
    from stageline.database import connect

    start(folder)
    with connect("owner") as session:
        session.execute(EVENTS, {"first": 1, "last": events // 6})
        for statements in (BOARD, RULES, ITEMS):
            session.execute(statements)
    vacuum()
    build.build("+orders_current", command="run", target_path=folder / "target")


def vacuum() -> None:
    """What autovacuum does in time."""
    from stageline.database import connect

    with connect("owner", autocommit=True) as session:
        session.execute("vacuum analyze")


def sample() -> dict[str, list[dict[str, str]]]:
    """Orders to ask for: some that were not written to since the run, and those that were."""
    from stageline.database import connect

    with connect("transformer") as session:
        written = session.execute(
            "select project_id, entity_id from intermediate.int_orders_written()"
        ).fetchall()
        quiet = session.execute(
            "select project_id, order_id from intermediate.int_orders where (project_id, order_id)"
            " not in (select project_id, entity_id from intermediate.int_orders_written())"
            " order by hashtext(order_id) limit 2000"
        ).fetchall()
    return {
        name: [{"project": project, "order": order} for project, order in orders]
        for name, orders in (("quiet", quiet), ("written", written))
    }


def seconds(
    session: psycopg.Connection[Any], query: str, given: dict[str, str], *, is_prepared: bool
) -> float:
    """How long a read takes, up to its last row."""
    started = time.perf_counter()
    rows = session.execute(query.encode(), given, prepare=is_prepared).fetchall()
    found = time.perf_counter() - started
    if not rows:
        raise SystemExit(f"{query} found nothing: mend this benchmark")
    return found


def compare(name: str, query: str, orders: list[dict[str, str]], reads: int) -> None:
    """Reads live and plain by turns, and shows the figures."""
    from stageline.database import connect

    chance = random.Random(7)  # noqa: S311 - the same reads in every run
    live, plain = query.format("kpis.orders_current"), query.format("bench.orders_current")
    for is_prepared in (True, False):
        with connect("reader", autocommit=True) as session:
            if not is_prepared:
                session.prepare_threshold = None
            first = seconds(session, live, orders[0], is_prepared=is_prepared)
            for _ in range(10):  # the plans of a session settle
                for each in (live, plain):
                    seconds(session, each, orders[0], is_prepared=is_prepared)
            found: dict[str, list[float]] = {live: [], plain: []}
            for _ in range(reads):
                given = chance.choice(orders)
                for each, times in found.items():
                    times.append(seconds(session, each, given, is_prepared=is_prepared))
        medians = [statistics.median(times) * 1000 for times in found.values()]
        p99 = statistics.quantiles(found[live], n=100)[98] * 1000
        print(
            f"{name:<38}{'prepared' if is_prepared else 'planned':<10}{medians[0]:>9.2f}"
            f"{medians[1]:>9.2f}{medians[0] / medians[1]:>8.2f}{p99:>9.2f}{first * 1000:>9.1f}"
        )


def measure(events: int, reads: int, folder: Path) -> None:
    """All reads at one size of the log."""
    from stageline.database import connect

    build(events, folder)
    print(f"\n{events:,} events")
    print(f"{'ms':<48}{'live':>9}{'plain':>9}{'ratio':>8}{'p99':>9}{'first':>9}")
    for news in (False, True):
        with connect("owner") as session:
            if news:
                session.execute(NEWS)
            session.execute(PLAIN)
        vacuum()
        orders = sample()
        what = f"tail of {len(orders['written'])}"
        compare(f"one order, {what}", ONE, orders["quiet"], reads)
        if news:
            compare(f"one order of the tail, {what}", ONE, orders["written"], reads)
        with connect("reader") as session:
            board = len(session.execute(OPEN.format("kpis.orders_current").encode()).fetchall())
        compare(f"board of {board}, {what}", OPEN, [{}], reads)


def main() -> None:
    """Reads the arguments, and cleans up in the end."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, nargs="+", default=[2_000_000])
    parser.add_argument("--reads", type=int, default=500)
    given = parser.parse_args()
    for events in given.events:
        folder = Path(tempfile.mkdtemp(prefix="stageline-bench-", dir="/tmp"))
        folder.chmod(0o755)  # PostgreSQL runs under an account of its own where we are root
        try:
            measure(events, given.reads, folder)
        finally:
            from stageline import server

            server.stop(folder / "home")
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
