"""What a refresh costs besides SQL: the groups of every quarter of an hour, with nothing new.

Each round refreshes each of them and then all together as `stageline worker` does: it plans,
claims, checks, lets dbt build and test, and notes freshness. Told are the processor's seconds of
our process and of dbt, the server's seconds at work, and what passed. The first refresh of all,
which imports dbt, reads the whole project and builds everything, is told by itself.

The data are those of the demo, so small that the SQL itself takes next to nothing.
"""

import argparse
import os
import shutil
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import psutil

CASES = (("tickets",), ("flow",), ("tickets", "flow"))


def processor_seconds() -> float:
    """What our process and all that it started have used, those that have ended too."""
    found = 0.0
    for process in (psutil.Process(), *psutil.Process().children(recursive=True)):
        with suppress(psutil.NoSuchProcess):  # its seconds are its parent's by now
            found += sum(process.cpu_times()[:4])
    return found


def sql_seconds() -> float:
    """How long all sessions so far, ended ones, were at work in PostgreSQL."""
    from stageline.database import connect

    with connect("owner") as session:
        row = session.execute(
            "select active_time / 1000 from pg_stat_database where datname = current_database()"
        ).fetchone()
    return float(row[0]) if row else 0.0


def refresh(names: Sequence[str]) -> dict[str, float]:
    """One refresh of groups; seconds by name."""
    from jobs import refresh_runs as runs
    from jobs.refresh import refresh_due
    from jobs.refresh_config import read
    from stageline.database import connect

    groups = read()
    before = processor_seconds(), sql_seconds(), time.monotonic()
    with connect("jobs", autocommit=True) as session:
        runs.sync(session, groups, datetime.now(UTC))
        for name in names:
            runs.request(session, name, "bench", datetime.now(UTC))
        outcomes = refresh_due(session, groups, threading.Event())
        runs.expect(session, datetime.now(UTC))
    after = processor_seconds(), sql_seconds(), time.monotonic()
    failed = [outcome.error for outcome in outcomes if outcome.error]
    if failed or len(outcomes) != len(names):
        sys.exit(f"The groups were not refreshed: {failed}")
    own, server, passed = (late - early for early, late in zip(before, after, strict=True))
    return {"processor, ours and dbt's": own, "PostgreSQL at work": server, "elapsed": passed}


def compare(folder: Path, rounds: int) -> None:
    """Measures, and shows the figures."""
    from jobs.sample import seed_sample
    from stageline import config, migrate, server

    os.environ |= {
        "STAGELINE_HOME": str(folder / "home"),
        "STAGELINE_ENV_FILE": str(folder / ".env"),
        "STAGELINE_OUTPUT": str(folder / "output"),
        "DBT_TARGET_PATH": str(folder / "target"),
    }
    os.environ.pop("STAGELINE_DATABASE_URL", None)
    config.settings.cache_clear()
    server.start(config.settings().home, 57400)
    migrate.upgrade()
    seed_sample()
    found = {"first, all": [refresh(CASES[-1])]}
    for _ in range(rounds):
        for names in CASES:
            found.setdefault(" and ".join(names), []).append(refresh(names))
    figures = list(found["first, all"][0])
    print(f"{'':<20}" + "".join(f"{figure:>28}" for figure in figures))
    for case, costs in found.items():
        medians = [statistics.median(cost[figure] for cost in costs) for figure in figures]
        print(f"{case:<20}" + "".join(f"{median:>28.2f}" for median in medians))


def main() -> None:
    """Reads the arguments, and cleans up in the end."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="stageline-bench-", dir="/tmp"))
    folder.chmod(0o755)  # PostgreSQL runs under an account of its own where we are root
    try:
        compare(folder, given.rounds)
    finally:
        from stageline import server

        server.stop(folder / "home")
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
