"""Loads of a CRM, beside the least that could be done.

A made-up CRM without limits answers in a process of its own, on this machine, whose processors it
shares with the loader and the database. What it has to say of its deals is written down before it
begins.

- a first load, from the CRM to the merged rows: deals a second, and the milliseconds of a processor
  that each deal costs the loader, the CRM and the database. On a machine with other work to do the
  first figure says little, and the others are too high.
- a load that finds nothing new, over one of an account in which there is nothing: of accounts of
  several sizes it shows what grows with them.
- rows loaded as Arrow, over a bare `copy` of the same rows into a table of the same shape; and rows
  landed in their own table with its indexes, as new ones and merged by key.
- calls that a changed deal costs.

fsync is on. Run it with `make bench`, or with other sizes:
python benchmarks/crm_load.py --source hubspot salesforce --deals 5000 50000
"""

import argparse
import io
import itertools
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import psutil  # type: ignore[import-untyped]  # ships no types
import pyarrow as pa
import pyarrow.csv as pa_csv
from psycopg import sql

#: What a CRM has in the place of deals.
_OTHERS = {"keycrm": "orders"}
#: Deals that closed long ago are loaded, too: all that there are count.
_EVER = datetime(2000, 1, 1, tzinfo=UTC)


def start(folder: Path) -> None:
    """A database of its own with fsync on."""
    from stageline import config, migrate, server
    from stageline.settings import encryption

    os.environ |= {
        "STAGELINE_HOME": str(folder / "home"),
        "STAGELINE_ENV_FILE": str(folder / ".env"),
        "STAGELINE_OUTPUT": str(folder / "output"),
        "STAGELINE_LOG_FORMAT": "json",
        "STAGELINE_SECRET_KEY": encryption.new_key(),
    }
    os.environ.pop("STAGELINE_DATABASE_URL", None)
    config.settings.cache_clear()
    server.start(config.settings().home, 27310)
    migrate.upgrade()


@contextmanager
def fake(source: str, deals: int, port: int) -> Iterator[tuple[str, psutil.Process]]:
    """A made-up CRM; gives its base URL and its process."""
    child = subprocess.Popen(
        [
            *(sys.executable, "-m", "stageline", "fake-crm", source),
            *("--port", str(port), "--deals", str(deals), "--no-limits"),
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert child.stdout is not None  # noqa: S101 - for the type checker: it is a pipe
        line = child.stdout.readline()
        url = line.partition(" answers at ")[2].partition(". In another")[0]
        yield url, psutil.Process(child.pid)
    finally:
        child.kill()


def seconds_of_load(source_name: str, project: str) -> tuple[float, dict[str, int], int]:
    """Seconds, calls by kind, and rows new or changed."""
    from loaders.accounts import chosen
    from loaders.crm import load
    from loaders.registry import source

    (account,) = chosen(source_name, project)
    found = source(source_name)
    paces = {kind: replace(pace, grows=True) for kind, pace in found.paces.items()}
    started = time.perf_counter()
    done = load(replace(found, paces=paces), project, account.account, since=_EVER)
    seconds = time.perf_counter() - started
    return seconds, dict(done.calls), sum(each.touched for each in done.tables.values())


def cpu_seconds(process: psutil.Process) -> float:
    """Seconds of a processor that a process and its children, ended ones too, took so far."""
    try:
        own, children = process.cpu_times(), process.children()
    except psutil.NoSuchProcess:  # ended meanwhile: it counts among its parent's children
        return 0.0
    ended = float(own.children_user + own.children_system)
    return float(own.user + own.system) + ended + sum(map(cpu_seconds, children))


def over_copy(source_name: str, rounds: int) -> tuple[int, str, list[float]]:
    """How many rows the largest table has, its name, and three times over that of `copy`: of
    loading the rows as Arrow into a table without index, and of landing them in an empty one of the
    source's, as new ones and merged by key.
    """
    from loaders.destination import Target, clear_scratch, exclusive, land
    from loaders.registry import source
    from stageline.database import connect

    def count(table: sql.Identifier) -> int:
        with connect("owner") as session:
            row = session.execute(sql.SQL("select count(*) from {}").format(table)).fetchone()
            return int(row[0]) if row else 0

    tables = {
        table: sql.Identifier(table.dataset, table.name) for table in source(source_name).tables
    }
    table, name = max(tables.items(), key=lambda each: count(each[1]))
    rows = rows_of(name)
    text = io.BytesIO()
    loaded = rows.append_column("_dlt_load_id", pa.repeat("1", len(rows)))
    pa_csv.write_csv(loaded, text)
    columns = sql.SQL(", ").join(map(sql.Identifier, loaded.column_names))
    copied = sql.SQL("copy {} ({}) from stdin (format csv, header)").format(
        sql.Identifier(f"{table.dataset}_staging", "bare"), columns
    )
    times: list[list[float]] = []
    for _ in range(rounds):
        with connect("loader", autocommit=True) as session:
            for bare in ("bare", "bare_of_dlt"):
                there = sql.Identifier(f"{table.dataset}_staging", bare)
                session.execute(sql.SQL("drop table if exists {}").format(there))
                session.execute(
                    sql.SQL("create table {} (like {} including defaults)").format(there, name)
                )
            started = time.perf_counter()
            with session.cursor().copy(copied) as copy:
                copy.write(text.getvalue())
            seconds = time.perf_counter() - started
        started = time.perf_counter()
        load_arrow(table.dataset, loaded)
        times.append([(time.perf_counter() - started) / seconds])
        for is_new in (True, False):
            target = Target(table.name, table.full_key, lambda: iter([rows]), is_new=is_new)
            with exclusive(table.dataset) as session:
                session.execute(sql.SQL("truncate {}").format(name))
                started = time.perf_counter()
                land(session, table.dataset, [target])
                clear_scratch(session, table.dataset, [target])
                times[-1].append((time.perf_counter() - started) / seconds)
    return len(rows), table.name, [statistics.median(each) for each in zip(*times, strict=True)]


def rows_of(table: sql.Identifier) -> pa.Table:
    """The rows of a table as a load hands them over."""
    from adbc_driver_postgresql import dbapi

    from loaders.columns import TYPES
    from stageline.database import connection

    query = sql.SQL("select * from {}").format(table).as_string()
    with dbapi.connect(connection("owner").url()) as session, session.cursor() as cursor:
        cursor.execute(query)
        found = cursor.fetch_arrow_table()
    return pa.table(
        {
            name: column.combine_chunks().storage.cast(TYPES["numeric"])
            if isinstance(column.type, pa.OpaqueType)  # a number, as text
            else column
            for name, column in zip(found.column_names, found.columns, strict=True)
            if name != "_dlt_load_id" and not is_stamp(column.type)
        }
    )


def is_stamp(kind: pa.DataType) -> bool:
    """Whether it is the number of a transaction, which the database writes by itself."""
    return isinstance(kind, pa.OpaqueType) and kind.type_name == "xid8"


def load_arrow(dataset: str, rows: pa.Table) -> None:
    """Loads rows as landing does, but for the merge."""
    from loaders import destination
    from stageline.config import settings

    dlt = destination._dlt()
    pipeline = dlt.pipeline(
        f"bare_{dataset}",
        pipelines_dir=str(settings().home / "dlt" / "bench"),
        dataset_name=f"{dataset}_staging",
        destination=dlt.destinations.postgres(destination._url(), create_indexes=False),
    )
    pipeline.run(
        [rows], table_name="bare_of_dlt", write_disposition="append", loader_file_format="parquet"
    )


def measure(source: str, deals: int, rounds: int) -> None:
    """Prints the figures of one source."""
    from stageline.config import settings
    from stageline.postmaster import find_process
    from stageline.settings import api_accounts, projects

    database = find_process((settings().home / "postgres").resolve())
    assert database is not None  # noqa: S101 - for the type checker: it was started
    what = _OTHERS.get(source, "deals")
    print(f"\n{source}, {deals:,} {what}")
    with fake(source, deals, 27311) as (full, crm), fake(source, 0, 27312) as (empty, _):
        for project, url in (("main", full), ("empty", empty)):
            projects.add(source, project)
            api_accounts.store(source, project, "right-token", url, 1_000_000)
        own = psutil.Process().cpu_times
        before = own().user + own().system, cpu_seconds(crm), cpu_seconds(database)
        seconds, calls, touched = seconds_of_load(source, "main")
        after = own().user + own().system, cpu_seconds(crm), cpu_seconds(database)
        loader, made_up, server = (
            f"{(now - then) / deals * 1000:.3f}" for now, then in zip(after, before, strict=True)
        )
        made = sum(calls.values())
        print(f"  first load: {deals / seconds:,.0f} {what} a second, {touched:,} rows")
        print(f"  processor, ms for each: loader {loader}, CRM {made_up}, database {server}")
        print(f"  calls: {made:,}, {made / deals:.3f} for each ({calls})")
        seconds_of_load(source, "empty")
        ratios = []
        for _ in range(rounds):
            nothing_new, again, changed = seconds_of_load(source, "main")
            nothing = seconds_of_load(source, "empty")[0]
            ratios.append(nothing_new / nothing)
        print(
            f"  nothing new: {statistics.median(ratios):.2f} x an empty account's load;"
            f" {sum(again.values())} calls, {changed} rows"
        )
    count, table, (load, new, merged) = over_copy(source, rounds)
    print(
        f"  {count:,} rows of {table}, over a bare copy: loaded as Arrow {load:.2f} x, landed as"
        f" new rows {new:.2f} x, merged by key {merged:.2f} x"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--source", nargs="+", default=["hubspot"])
    parser.add_argument("--deals", type=int, nargs="+", default=[50_000])
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    from stageline import server
    from stageline.config import settings

    for source, deals in itertools.product(given.source, given.deals):
        with tempfile.TemporaryDirectory() as folder:
            start(Path(folder))
            try:
                measure(source, deals, given.rounds)
            finally:
                server.stop(settings().home)


if __name__ == "__main__":
    main()
