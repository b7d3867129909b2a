"""The flow models, over the least that can be done with a log.

The floor is `create table as select *, lead(entered_at) over (...)` on the same events, in the
order in which they arrived. Beside it:

- visits with working time: the model's own SQL over the events in a plain table, and over the log
  as it ships, which merges what several sources tell; without an index, one after the other, so
  that a busy machine is busy for all of them. And the same visits with their working time summed
  day by day, which is what a calendar without running totals comes to.
- the chain: every flow model from nothing, as `dbt run` builds it in two sessions; the time of both
  in PostgreSQL added up, and what passed from the first model's start to the last one's end.
- a refresh of all of them after 1,000 events on 100 entities; its time in PostgreSQL over the
  chain's.

fsync is on. Run it with `make bench`, or with other sizes:
python benchmarks/flow.py --events 200000 2000000
"""

import argparse
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path

#: Orders of two projects and deals of a third, begun within two years, with six visits each on the
#: average, nine days apart;
#: an order's webhooks name its group and creation, a deal's do not.
EVENTS = """
insert into raw.stage_events (
    source_system, project_id, entity_type, entity_id, pipeline_id, stage_id, stage_group_id,
    entered_at, entity_created_at, delivery_id, ingested_at
)
select
    case when is_deal then 'pipedrive' else 'keycrm' end,
    (array['kyiv', 'amsterdam', 'new-york'])[1 + entity %% 3],
    case when is_deal then 'deal' else 'order' end,
    entity::text,
    case when is_deal then (1 + entity %% 4)::text end,
    stage::text,
    case when not is_deal then (1 + stage %% 6)::text end,
    entered_at,
    case when not is_deal then began_at - interval '5 minutes' end,
    gen_random_uuid(),
    entered_at + interval '1 second'
from (
    select
        entity,
        visit,
        entity %% 3 = 2 as is_deal,
        1 + (entity * 7 + visit * 11) %% 40 as stage,
        began_at,
        began_at + visit * interval '9 days'
        + (hashint8(entity * 16 + visit) %% 1000000) * interval '1 millisecond' * 4 as entered_at
    from (
        select
            entity,
            timestamptz '2023-01-02 08:00Z'
            + (hashint8(entity) & 2147483647) %% 63072000 * interval '1 second' as began_at
        from generate_series(%(first)s::bigint, %(last)s) as numbers (entity)
    ) as entities
    cross join generate_series(0, 11) as visits (visit)
    where visit < 1 + (hashint8(entity * 3) & 2147483647) %% 11
) as entries
order by entered_at
"""

SETTINGS = """
insert into settings.projects (source_system, project_id, timezone) values
('keycrm', 'kyiv', 'Europe/Kyiv'),
('keycrm', 'amsterdam', 'Europe/Amsterdam'),
('pipedrive', 'new-york', 'America/New_York');
insert into settings.calendars (source_system, project_id, group_id) values
('keycrm', 'kyiv', null), ('pipedrive', 'new-york', null);
insert into settings.calendar_windows
select calendars.calendar_id, weekday, hours.opens * 3600, hours.closes * 3600
from settings.calendars
cross join generate_series(1, 5) as weekdays (weekday)
cross join (values (9, 13), (14, 18)) as hours (opens, closes);
insert into settings.stage_group_dictionary (source_system, project_id, group_id, name, kind)
select
    source_system, project_id, number::text, 'Group ' || number,
    case number when 5 then 'done' when 6 then 'cancelled' else 'open' end
from settings.projects
cross join generate_series(1, 6) as groups (number);
insert into settings.stage_dictionary (source_system, project_id, stage_id, name, group_id)
select
    source_system, project_id, number::text, 'Stage ' || number, (1 + number % 6)::text
from settings.projects
cross join generate_series(1, 40) as stages (number)
"""

#: What the clocks of orders need, in all projects.
RULES = """
insert into settings.sla_stage_rules (source_system, project_id, group_id, limit_seconds)
select source_system, project_id, group_id, 100000
from settings.stage_group_dictionary
where kind = 'open';
insert into settings.cycle_rules
    (source_system, project_id, title, start_group_id, end_group_id, is_default)
select source_system, project_id, 'to delivery', '1', '4', true from settings.projects;
insert into settings.urgent_rules
    (source_system, project_id, rule_name, match_type, match_value)
select source_system, project_id, 'Express', 'sku', 'EXPRESS' from settings.projects
"""

#: A published version: most stages mean one of the sub-stages, three of forty are not mapped.
MAP = """
insert into settings.report_versions (report_version, title) values (1, 'Benchmark');
insert into settings.stage_map_scd
    (report_version, source_system, project_id, stage_id, sub_key)
select 1, projects.source_system, projects.project_id, stage::text, substages.sub_key
from settings.projects
cross join generate_series(1, 37) as stages (stage)
inner join reference.canonical_substages as substages
    on substages.sort_order = 1 + (stage - 1) % 15;
update settings.report_versions set state = 'published', published_at = now()
"""

#: Ten more events, a minute apart, of each of 100 entities that were written to before.
NEWS = """
insert into raw.stage_events (
    source_system, project_id, entity_type, entity_id, pipeline_id, stage_id, stage_group_id,
    entered_at, entity_created_at, delivery_id
)
select
    source_system, project_id, entity_type, entity_id, pipeline_id,
    (1 + (number * 7) %% 40)::text,
    case when entity_type = 'order' then (1 + number %% 6)::text end,
    latest.entered_at + interval '1 day' + number * interval '1 minute',
    entity_created_at,
    gen_random_uuid()
from (
    select distinct on (entity_id::bigint) *
    from raw.stage_events
    where entity_id::bigint %% (%(entities)s / 100) = %(remainder)s
    order by entity_id::bigint, entered_at
    limit 100
) as chosen
cross join (select max(entered_at) as entered_at from raw.stage_events) as latest
cross join generate_series(1, 10) as numbers (number)
"""

FLOOR = """
select
    *,
    lead(entered_at) over (
        partition by source_system, project_id, entity_type, entity_id order by entered_at
    ) as left_at
from bench.events
"""

#: Each stretch of working time as a row, as a calendar without running totals has them.
STRETCHES = """
create table bench.stretches as
select
    calendar_scope_id,
    utc_day,
    utc_day * 86400::bigint + pieces.from_second as from_second,
    utc_day * 86400::bigint + pieces.to_second as to_second
from intermediate.int_working_calendar
cross join lateral (
    values (from_1, to_1), (from_2, to_2), (from_3, to_3), (from_4, to_4)
) as pieces (from_second, to_second)
where pieces.from_second is not null
"""
EXPLODED = """
with visits as (
    select
        log.*,
        lead(entered_at) over (
            partition by source_system, project_id, entity_type, entity_id order by entered_at
        ) as left_at
    from bench.events as log
),
seconds as (
    select
        visits.*,
        scopes.calendar_scope_id,
        floor(extract(epoch from visits.entered_at))::bigint as entered_second,
        floor(extract(epoch from visits.left_at))::bigint as left_second
    from visits
    left join intermediate.int_calendar_scopes as scopes
        using (source_system, project_id)
),
worked as (
    select
        source_system, project_id, entity_type, entity_id, stage_id, entered_at,
        sum(greatest(
            0, least(to_second, left_second) - greatest(from_second, entered_second)
        )) as working_seconds
    from seconds
    cross join lateral
        generate_series(entered_second / 86400, left_second / 86400) as days (utc_day)
    inner join bench.stretches using (calendar_scope_id, utc_day)
    group by source_system, project_id, entity_type, entity_id, stage_id, entered_at
)
select seconds.*, coalesce(worked.working_seconds, 0) as working_seconds
from seconds
left join worked
    using (source_system, project_id, entity_type, entity_id, stage_id, entered_at)
"""


#: All flow models and what they read.
CHAIN = "+path:models/kpis/flow"


def fill(events: int, already: int) -> None:
    """Adds events up to about that many in all, and what is compared with the models."""
    from stageline.database import connect

    # 6 visits an entity; ids go on from where the last fill ended.
    first, last = already // 6 + 1, events // 6
    with connect("owner") as session:
        session.execute(EVENTS, {"first": first, "last": last})
        session.execute("analyze raw.stage_events")
        session.execute("drop table if exists bench.events")
        session.execute(
            "create table bench.events as"
            " select * from staging.stg_stage_events order by ingested_at"
        )
        session.execute("analyze bench.events")


def measure(queries: dict[str, str], rounds: int) -> dict[str, float]:
    """Median seconds of building each query as a table; the rounds alternate."""
    from stageline.database import connect

    found: dict[str, list[float]] = {name: [] for name in queries}
    with connect("owner", autocommit=True) as session:
        for number in range(rounds):
            print(f"round {number + 1} of {rounds}", file=sys.stderr)
            for name, query in queries.items():
                started = time.perf_counter()
                session.execute(f"create table bench.made as {query}".encode())
                found[name].append(time.perf_counter() - started)
                session.execute("drop table bench.made")
    return {name: statistics.median(seconds) for name, seconds in found.items()}


def run(folder: Path, select: str, command: str = "run", *, is_whole: bool = False) -> None:
    """Builds models, without their tests."""
    from jobs.build import build

    build(select, command=command, full_refresh=is_whole, target_path=folder / "target")


def compiled(folder: Path) -> str:
    """The model's own SQL, after a run that made all that it reads."""
    run(folder, "+int_stage_intervals")
    (path,) = folder.glob("target/compiled/**/int_stage_intervals.sql")
    return path.read_text()


def sql_seconds() -> float:
    """How long all sessions so far, ended ones, were at work in PostgreSQL."""
    from stageline.database import connect

    with connect("owner") as session:
        row = session.execute(
            "select active_time / 1000 from pg_stat_database where datname = current_database()"
        ).fetchone()
    return float(row[0]) if row else 0.0


def elapsed(folder: Path) -> float:
    """Seconds from the start of the last run's first model to the end of its last one."""
    results = json.loads((folder / "target" / "run_results.json").read_text())["results"]
    instants = [
        datetime.fromisoformat(timing[end])
        for result in results
        for timing in result["timing"]
        for end in ("started_at", "completed_at")
    ]
    return (max(instants) - min(instants)).total_seconds()


def measure_runs(folder: Path, entities: int, rounds: int) -> dict[str, float]:
    """Medians of whole builds of all flow models, and of refreshes after some news."""
    from stageline.database import connect

    found: dict[str, list[float]] = {"chain, SQL": [], "chain, elapsed": [], "refresh, SQL": []}
    for number in range(rounds):
        print(f"runs, round {number + 1} of {rounds}", file=sys.stderr)
        before = sql_seconds()
        run(folder, CHAIN, is_whole=True)
        found["chain, SQL"].append(sql_seconds() - before)
        found["chain, elapsed"].append(elapsed(folder))
        with connect("owner") as session:
            session.execute(NEWS, {"entities": entities, "remainder": number})
        before = sql_seconds()
        run(folder, CHAIN)
        found["refresh, SQL"].append(sql_seconds() - before)
    return {name: statistics.median(seconds) for name, seconds in found.items()}


def start(folder: Path) -> None:
    """A database of its own with fsync on, and settings."""
    from stageline import config, migrate, server
    from stageline.database import connect

    os.environ |= {
        "STAGELINE_HOME": str(folder / "home"),
        "STAGELINE_ENV_FILE": str(folder / ".env"),
        "STAGELINE_OUTPUT": str(folder / "output"),
    }
    os.environ.pop("STAGELINE_DATABASE_URL", None)
    config.settings.cache_clear()
    server.start(config.settings().home, 57300)
    migrate.upgrade()
    with connect("owner") as session:
        session.execute(SETTINGS)
        session.execute("create schema bench")


def prepare(folder: Path) -> str:
    """A database to measure in; returns the model's SQL."""
    from stageline.database import connect

    start(folder)
    run(folder, "path:seeds/reference", "seed")
    model = compiled(folder)
    with connect("owner") as session:
        session.execute(RULES)
        session.execute(MAP)
        session.execute("analyze intermediate.int_working_calendar")
        session.execute(STRETCHES)
        session.execute("analyze bench.stretches")
    return model


def compare(folder: Path, sizes: list[int], rounds: int) -> None:
    """Measures at each size, and shows the figures."""
    model = prepare(folder)
    log = '"stageline"."staging"."stg_stage_events"'
    if log not in model:
        raise SystemExit(f"int_stage_intervals does not read {log}: mend this benchmark")
    queries = {
        "floor": FLOOR,
        "visits, plain events": model.replace(log, "bench.events"),
        "visits": model,
        "visits, day by day": EXPLODED,
    }
    print(f"{'events':>10}  {'':<22}{'seconds':>9}{'of floor':>10}{'growth per event':>18}")
    before: dict[str, float] = {}
    filled = 0
    for size in sizes:
        fill(size, filled)
        filled = size
        found = measure(queries, rounds) | measure_runs(folder, size // 6, rounds)
        for name, seconds in found.items():
            each = seconds / size
            growth = f"x {each / before[name]:.2f}" if name in before else ""
            print(
                f"{size:>10,}  {name:<22}{seconds:>9.2f}{seconds / found['floor']:>10.2f}"
                f"{growth:>18}"
            )
            before[name] = each
        print(f"{size:>10,}  refresh of chain: {found['refresh, SQL'] / found['chain, SQL']:.1%}")


def main() -> None:
    """Reads the arguments, and cleans up in the end."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, nargs="+", default=[200_000, 2_000_000])
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="stageline-bench-", dir="/tmp"))
    folder.chmod(0o755)  # PostgreSQL runs under an account of its own where we are root
    try:
        compare(folder, sorted(given.events), given.rounds)
    finally:
        from stageline import server

        server.stop(folder / "home")
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
