"""The models of sales activity, over one grouped scan of the activities that they count.

The floor is `create table as select ..., count(*), count(completed_at) group by` project, rep and
local day, of all activities as they were loaded. Beside it:

- the models: every one of them from nothing, as `dbt run` builds them in two sessions; the time of
  both in PostgreSQL added up, and what passed from the first model's start to the last one's end.
- a refresh of all of them after 1,000 calls were held, put off or booked.
- calls by hour alone, from nothing and refreshed: what is built by what changed.

The data are those of `stageline generate sales`, grown in two ways that end at the same 3 million
activities: `--scale` adds departments of 8 reps (3,000 activities of 120 days each, so that 1,000
of them have 8,000 reps), `--years` adds years to a company of 200 reps (300,000 activities each).
Figures have a row for each rep and day either way; a refresh meets a quarter, or ten years.

fsync is on. Run it with `make bench`, or with other sizes:
python benchmarks/sales_activity.py --scale 100 1000 --years 1 10
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path

FLOOR = """
create table bench.floor as
select
    source_system,
    project_id,
    rep_id,
    cast(scheduled_at at time zone 'Europe/Kyiv' as date) as day,
    count(*) as activities,
    count(completed_at) as completed
from raw_files.activities
group by 1, 2, 3, 4
"""

#: A thousand calls, on all days: those ahead are put off by a day, the others are held now.
NEWS = """
update raw_files.activities
set
    scheduled_at = scheduled_at
    + case when completed_at is null then interval '1 day' else interval '0' end,
    completed_at = completed_at + interval '1 minute'
where activity_id in (
    select activity_id from raw_files.activities
    where activity_type = 'call' and scheduled_at > now() - interval '3 days'
    order by hashtext(activity_id || %s::text)
    limit 1000
)
"""

MODELS = ("path:models/intermediate/activity", "path:models/kpis/activity")


#: Departments of the company whose history grows, and the leads of one of them in a year.
DEPARTMENTS, LEADS_OF_YEAR = 25, 400


def departments(scale: int) -> dict[str, int]:
    """Options of the generator for this many departments."""
    return {"--scale": scale}


def history(years: int) -> dict[str, int]:
    """Options of the generator for this many years of one company."""
    return {
        "--scale": DEPARTMENTS,
        "--leads": LEADS_OF_YEAR * years,
        "--days-back": 365 * years,
    }


def generate(options: dict[str, int]) -> int:
    """Puts a made-up company into the database; returns its activities."""
    from stageline.database import connect

    words = [str(word) for option in options.items() for word in option]
    subprocess.run([sys.executable, "-m", "stageline", "generate", "sales", *words], check=True)
    with connect("owner", autocommit=True) as session:
        session.execute("vacuum analyze raw_files.activities")
        session.execute("vacuum analyze raw_files.pipeline_items")
        row = session.execute("select count(*) from raw_files.activities").fetchone()
    return int(row[0]) if row else 0


def floor() -> float:
    """Seconds of one grouped scan."""
    from stageline.database import connect

    with connect("owner", autocommit=True) as session:
        started = time.perf_counter()
        session.execute(FLOOR)
        seconds = time.perf_counter() - started
        session.execute("drop table bench.floor")
    return seconds


def sql_seconds() -> float:
    """How long all sessions so far, ended ones, were at work in PostgreSQL."""
    from stageline.database import connect

    with connect("owner") as session:
        row = session.execute(
            "select active_time / 1000 from pg_stat_database where datname = current_database()"
        ).fetchone()
    return float(row[0]) if row else 0.0


def run(folder: Path, *, is_whole: bool) -> dict[str, float]:
    """Builds the models, without tests; seconds in PostgreSQL, elapsed ones, and of each model."""
    from jobs.build import build

    before = sql_seconds()
    build(" ".join(MODELS), command="run", full_refresh=is_whole, target_path=folder / "target")
    spent = sql_seconds() - before
    results = json.loads((folder / "target" / "run_results.json").read_text())["results"]
    instants = [
        datetime.fromisoformat(timing[end])
        for result in results
        for timing in result["timing"]
        for end in ("started_at", "completed_at")
    ]
    kind = "built" if is_whole else "refreshed"
    return {
        f"all, {kind}, SQL": spent,
        f"all, {kind}, elapsed": (max(instants) - min(instants)).total_seconds(),
        **{
            f"{result['unique_id'].rpartition('.')[2]}, {kind}": result["execution_time"]
            for result in results
        },
    }


def compare(folder: Path, companies: list[dict[str, int]], rounds: int) -> None:
    """Measures with each company, and shows the figures."""
    from jobs.build import build
    from stageline import config, migrate, server
    from stageline.database import connect

    os.environ |= {
        "STAGELINE_HOME": str(folder / "home"),
        "STAGELINE_ENV_FILE": str(folder / ".env"),
        "STAGELINE_OUTPUT": str(folder / "output"),
    }
    os.environ.pop("STAGELINE_DATABASE_URL", None)
    config.settings.cache_clear()
    server.start(config.settings().home, 57400)
    migrate.upgrade()
    with connect("owner") as session:
        session.execute("create schema bench")
    for options in companies:
        activities = generate(options)
        build(
            " ".join(f"+{model}" for model in MODELS),
            exclude="resource_type:test resource_type:unit_test",
            target_path=folder / "target",
        )
        found: dict[str, list[float]] = {}
        for number in range(rounds):
            print(f"round {number + 1} of {rounds}", file=sys.stderr)
            figures = {"floor": floor(), **run(folder, is_whole=True)}
            with connect("owner") as session:
                session.execute(NEWS, [number])
            figures |= run(folder, is_whole=False)
            for name, seconds in figures.items():
                found.setdefault(name, []).append(seconds)
        medians = {name: statistics.median(seconds) for name, seconds in found.items()}
        print(" ".join(f"{name} {value}" for name, value in options.items()))
        print(f"{'activities':>10}  {'':<40}{'seconds':>9}{'of floor':>10}")
        for name, seconds in medians.items():
            print(
                f"{activities:>10,}  {name:<40}{seconds:>9.2f}{seconds / medians['floor']:>10.2f}"
            )


def main() -> None:
    """Reads the arguments, and cleans up in the end."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scale", type=int, nargs="*", default=[])
    parser.add_argument("--years", type=int, nargs="*", default=[])
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    if not given.scale and not given.years:
        given.scale, given.years = [100, 1000], [1, 10]
    folder = Path(tempfile.mkdtemp(prefix="stageline-bench-", dir="/tmp"))
    folder.chmod(0o755)  # PostgreSQL runs under an account of its own where we are root
    try:
        companies = [*map(departments, given.scale), *map(history, given.years)]
        compare(folder, companies, given.rounds)
    finally:
        from stageline import server

        server.stop(folder / "home")
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
