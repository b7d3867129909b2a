"""Loads of a CRM, beside the least that could be done.

A made-up CRM without limits answers in a process of its own, on this machine.

- a first load, from the CRM to the merged rows: deals a second.
- a load that finds nothing new, over one of an account in which there is nothing.
- the database's part of a load, over a bare `copy` of the same rows into a table of the same shape.
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
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pa_csv


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
    server.start(config.settings().home, 57310)
    migrate.upgrade()


@contextmanager
def fake(source: str, deals: int, port: int) -> Iterator[str]:
    """A made-up CRM; gives its base URL."""
    child = subprocess.Popen(
        [
            *(sys.executable, "-m", "stageline", "fake-crm", source),
            *("--port", str(port), "--deals", str(deals)),
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
    done = load(replace(found, paces=paces), project, account.account)
    seconds = time.perf_counter() - started
    return seconds, dict(done.calls), sum(each.touched for each in done.tables.values())


def over_copy(source_name: str, project: str, rounds: int) -> float:
    """Seconds of landing the largest table's rows into an empty one, over those of `copy`."""
    from psycopg import sql
    from psycopg.rows import dict_row

    from loaders.destination import Target, clear_scratch, exclusive, land
    from loaders.records import Rows, Table
    from loaders.registry import source
    from stageline.database import connect

    def count(table: Table) -> int:
        with connect("owner") as session:
            name = sql.Identifier(table.dataset, table.name)
            row = session.execute(sql.SQL("select count(*) from {}").format(name)).fetchone()
            return int(row[0]) if row else 0

    table = max(source(source_name).tables, key=count)
    name = sql.Identifier(table.dataset, table.name)
    with connect("owner") as session, session.cursor(row_factory=dict_row) as cursor:
        records = cursor.execute(sql.SQL("select * from {}").format(name)).fetchall()
    rows = Rows(table)
    for record in records:
        key = tuple(record[column] for column in table.key)
        rows._rows[key] = record
    arrow: pa.Table = rows.arrow(project)
    target = Target(table.name, table.full_key, lambda: iter([arrow]))
    text = io.BytesIO()
    loaded = arrow.append_column("_dlt_load_id", pa.repeat("1", len(arrow)))
    pa_csv.write_csv(loaded, text)
    ratios = []
    for _ in range(rounds):
        with connect("owner", autocommit=True) as session:
            session.execute(sql.SQL("truncate {}").format(name))
        started = time.perf_counter()
        with exclusive(table.dataset) as session:
            land(session, table.dataset, [target])
            clear_scratch(session, table.dataset, [target])
        landing = time.perf_counter() - started
        with connect("owner", autocommit=True) as session:
            session.execute("drop table if exists public.bare")
            session.execute(
                sql.SQL("create table public.bare (like {} including defaults)").format(name)
            )
            columns = sql.SQL(", ").join(map(sql.Identifier, loaded.column_names))
            started = time.perf_counter()
            query = sql.SQL("copy public.bare ({}) from stdin (format csv, header)").format(columns)
            with session.cursor().copy(query) as copy:
                copy.write(text.getvalue())
            bare = time.perf_counter() - started
        ratios.append(landing / bare)
    print(f"  {len(arrow):,} rows of {table.name}")
    return statistics.median(ratios)


def measure(source: str, deals: int, rounds: int) -> None:
    """Prints the figures of one source."""
    from stageline.settings import api_accounts, projects

    print(f"\n{source}, {deals:,} deals")
    with fake(source, deals, 57311) as full, fake(source, 0, 57312) as empty:
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
    print(f"  landing: {over_copy(source, 'main', rounds):.2f} x a bare copy")


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
