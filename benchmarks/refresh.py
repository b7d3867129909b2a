"""What a refresh costs besides SQL: the groups of every quarter of an hour, with nothing new.

Each round refreshes them once as `stageline worker` does: it plans, claims, checks, lets dbt build
and test, and notes freshness. Told are the processor's seconds of our process and of dbt, the
server's seconds at work, what passed, and the same as a multiple of the server's seconds. The first
refresh of a process, which imports dbt and reads the whole project, is told by itself.

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
from datetime import UTC, datetime
from pathlib import Path

import psutil

GROUPS = ("tickets", "flow")


def processor_seconds() -> float:
    """What our process and all that it started have used, those that have ended too."""
    return sum(
        sum(process.cpu_times()[:4])
        for process in (psutil.Process(), *psutil.Process().children(recursive=True))
    )


def sql_seconds() -> float:
    """How long all sessions so far, ended ones, were at work in PostgreSQL."""
    from stageline.database import connect

    with connect("owner") as session:
        row = session.execute(
            "select active_time / 1000 from pg_stat_database where datname = current_database()"
        ).fetchone()
    return float(row[0]) if row else 0.0


def refresh() -> dict[str, float]:
    """One refresh of the groups; seconds by name."""
    from jobs import refresh_runs as runs
    from jobs.refresh import refresh_due
    from jobs.refresh_config import read
    from stageline.database import connect

    groups = read()
    before = processor_seconds(), sql_seconds(), time.monotonic()
    with connect("jobs", autocommit=True) as session:
        runs.sync(session, groups, datetime.now(UTC))
        for name in GROUPS:
            runs.request(session, name, "bench", datetime.now(UTC))
        outcomes = refresh_due(session, groups, threading.Event())
        runs.expect(session, datetime.now(UTC))
    after = processor_seconds(), sql_seconds(), time.monotonic()
    failed = [outcome.error for outcome in outcomes if outcome.error]
    if failed or len(outcomes) != len(GROUPS):
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
    first = refresh()
    found = [refresh() for _ in range(rounds)]
    print(f"{'':<30}{'first':>9}{'after it':>10}")
    for name in first:
        print(f"{name:<30}{first[name]:>9.2f}{statistics.median(r[name] for r in found):>10.2f}")


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
