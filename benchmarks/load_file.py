"""Loads a file of a million opportunities, beside a bare COPY of the same file.

COPY checks nothing but types, keeps no rejects, finds no repeated key and cannot be done twice: the
ratio is what checking, merging and being able to repeat cost. Prints the figures as a table.

Run it with `make bench`, or with another number of rows: python benchmarks/load_file.py 200000
"""

import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

COLUMNS = (
    "opportunity_id",
    "lead_id",
    "facility_id",
    "rep_id",
    "name",
    "company",
    "stage",
    "status",
    "amount",
    "currency",
    "win_probability",
    "created_at",
    "closed_at",
    "expected_close_date",
    "updated_at",
    "is_deleted",
)


def write_rows(path: Path, count: int) -> None:
    """A CSV of ``count`` opportunities, the same ones each time."""
    chance = random.Random(7)  # noqa: S311 - sample rows, no secret
    start = datetime(2023, 1, 1, tzinfo=UTC)
    with path.open("w") as file:
        file.write(",".join(COLUMNS) + "\n")
        for number in range(count):
            at = start + timedelta(seconds=chance.randrange(60_000_000))
            later = at + timedelta(days=9)
            file.write(
                f"opp-{number:08},lead-{chance.randrange(count)},fac-{number % 20},"
                f'rep-{number % 300},"Deal, no {number}",Company {chance.randrange(9999)},'
                f"Proposal,{chance.choice(('open', 'won', 'lost'))},"
                f"{chance.randrange(10**7) / 100:.2f},EUR,0.{chance.randrange(10)},"
                f"{at:%FT%TZ},{later:%FT%TZ},{later:%F},{at:%FT%T}+02:00,false\n"
            )


def timed(work: Callable[[], None]) -> float:
    """Seconds that ``work`` takes."""
    started = time.monotonic()
    work()
    return time.monotonic() - started


def load(path: Path) -> tuple[float, int]:
    """Seconds and peak memory (MB) of `stageline load file` in a process of its own."""
    command = ["load", "file", str(path), "--as", "opportunities"]
    started = time.monotonic()
    child = subprocess.Popen(
        [sys.executable, "-m", "stageline", *command],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    _, status, used = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise SystemExit(f"the load ended with {child.returncode}")
    return time.monotonic() - started, used.ru_maxrss // 1024


def main() -> None:
    """Measures on an embedded server of its own, in a folder that is removed again."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    with tempfile.TemporaryDirectory(prefix="stageline-bench-") as name:
        folder = Path(name)
        folder.chmod(0o755)  # PostgreSQL runs under an account of its own where we are root
        os.environ.update(
            STAGELINE_HOME=str(folder / "home"),
            STAGELINE_ENV_FILE=os.devnull,
            STAGELINE_LOG_FORMAT="json",
        )
        os.environ.pop("STAGELINE_DATABASE_URL", None)
        from stageline import migrate, server
        from stageline.database import connect

        path = folder / "rows.csv"
        write_rows(path, count)
        server.start(folder / "home", 55500)
        try:
            migrate.upgrade()
            with connect("loader", autocommit=True) as session:
                session.execute(
                    "create table raw_demo.copied (like raw_files.opportunities including defaults)"
                )
                session.execute(
                    "alter table raw_demo.copied alter project_id set default 'default'"
                )
                session.execute(
                    "create unique index on raw_demo.copied (project_id, opportunity_id)"
                )

                def copy() -> None:
                    columns = ", ".join(COLUMNS)
                    statement = f"copy raw_demo.copied ({columns}) from stdin (format csv, header)"
                    with (
                        session.cursor() as cursor,
                        cursor.copy(statement.encode()) as stream,
                        path.open("rb") as file,
                    ):
                        while block := file.read(1 << 20):
                            stream.write(block)

                copied = timed(copy)
                first, memory = load(path)
                again, memory_again = load(path)
                session.execute("truncate raw_demo.copied")
                copied = (copied + timed(copy)) / 2
        finally:
            server.stop(folder / "home")
    size = f"{count:,} rows, {len(COLUMNS)} columns"
    print(f"{'':24}{'seconds':>10}{'rows/s':>12}{'x COPY':>10}{'peak MB':>10}   ({size})")
    for what, seconds, peak in (
        ("bare COPY", copied, None),
        ("first load", first, memory),
        ("same file again", again, memory_again),
    ):
        print(
            f"{what:24}{seconds:>10.1f}{count / seconds:>12,.0f}{seconds / copied:>10.1f}"
            f"{peak if peak is not None else '':>10}"
        )


if __name__ == "__main__":
    main()
