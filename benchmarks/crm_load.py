"""Loads of a CRM, beside the least that could be done.

A made-up CRM without limits answers in a process of its own, on this machine.

- a first load, from the CRM to the merged rows: deals a second.
- a load that finds nothing new, over one of an account in which there is nothing.
- rows loaded as Arrow, and rows landed (loaded, then merged by key), over a bare `copy` of the same
  rows into a table of the same shape.
- calls that a changed deal costs.

fsync is on. Run it with `make bench`, or with other sizes:
python benchmarks/crm_load.py --source hubspot --deals 50000
"""

import argparse
import io
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

import pyarrow as pa
import pyarrow.csv as pa_csv
from psycopg import sql

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
def fake(source: str, deals: int, port: int) -> Iterator[str]:
    """A made-up CRM; gives its base URL."""
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
        yield line.partition(" answers at ")[2].partition(". In another")[0]
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


def over_copy(source_name: str, rounds: int) -> tuple[int, str, float, float]:
    """How many rows the largest table has, its name, and two times over that of `copy`: of loading
    the rows as Arrow into a table without index, and of landing them, merged by key, in an empty
    one of the source's.
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
    target = Target(table.name, table.full_key, lambda: iter([rows]))
    text = io.BytesIO()
    loaded = rows.append_column("_dlt_load_id", pa.repeat("1", len(rows)))
    pa_csv.write_csv(loaded, text)
    columns = sql.SQL(", ").join(map(sql.Identifier, loaded.column_names))
    copied = sql.SQL("copy {} ({}) from stdin (format csv, header)").format(
        sql.Identifier(f"{table.dataset}_staging", "bare"), columns
    )
    loads, landings = [], []
    for _ in range(rounds):
        with connect("loader", autocommit=True) as session:
            session.execute(sql.SQL("truncate {}").format(name))
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
        loads.append((time.perf_counter() - started) / seconds)
        started = time.perf_counter()
        with exclusive(table.dataset) as session:
            land(session, table.dataset, [target])
            clear_scratch(session, table.dataset, [target])
        landings.append((time.perf_counter() - started) / seconds)
    return len(rows), table.name, statistics.median(loads), statistics.median(landings)


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
            if isinstance(column.type, pa.BaseExtensionType)  # a number, as text
            else column
            for name, column in zip(found.column_names, found.columns, strict=True)
            if name not in ("_dlt_load_id", "loaded_xid")
        }
    )


def load_arrow(dataset: str, rows: pa.Table) -> None:
    """Loads rows as landing does, but for the merge."""
    from loaders import destination
    from stageline.config import settings

    dlt = destination._dlt()
    pipeline = dlt.pipeline(
        "bare",
        pipelines_dir=str(settings().home / "dlt" / "bench"),
        dataset_name=f"{dataset}_staging",
        destination=dlt.destinations.postgres(destination._url(), create_indexes=False),
    )
    pipeline.run(
        [rows], table_name="bare_of_dlt", write_disposition="append", loader_file_format="parquet"
    )


def measure(source: str, deals: int, rounds: int) -> None:
    """Prints the figures of one source."""
    from stageline.settings import api_accounts, projects

    print(f"\n{source}, {deals:,} deals")
    with fake(source, deals, 27311) as full, fake(source, 0, 27312) as empty:
        for project, url in (("main", full), ("empty", empty)):
            projects.add(source, project)
            api_accounts.store(source, project, "right-token", url, 1_000_000)
        seconds, calls, touched = seconds_of_load(source, "main")
        made = sum(calls.values())
        print(f"  first load: {deals / seconds:,.0f} deals a second, {touched:,} rows")
        print(f"  calls: {made:,}, {made / deals:.3f} a deal ({calls})")
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
    count, table, load, landing = over_copy(source, rounds)
    print(
        f"  {count:,} rows of {table}, over a bare copy: loaded as Arrow {load:.2f} x, landed"
        f" (loaded, then merged by key) {landing:.2f} x"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--source", nargs="+", default=["hubspot"])
    parser.add_argument("--deals", type=int, default=50_000)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        from stageline import server
        from stageline.config import settings

        start(Path(folder))
        try:
            for source in given.source:
                measure(source, given.deals, given.rounds)
        finally:
            server.stop(settings().home)


if __name__ == "__main__":
    main()
