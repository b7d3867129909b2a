"""Tables of sales activity that are built by what changed hold what they would if built whole."""

from collections.abc import Callable
from dataclasses import replace
from datetime import date, datetime, timedelta
from decimal import Decimal
from random import Random
from typing import Any

import pytest

from stageline.database import connect
from tests.activity_database import change, keyed, load, table
from tests.activity_oracle import GRAIN, kpis, start_of
from tests.activity_worlds import AS_OF, World, random_world
from tests.integration.test_activity_oracle import SHOWN, differences
from tests.warm_dbt import WarmDbt

#: The last one of them is of a project that counts nowhere.
SEEDS = range(12)
DAY = timedelta(days=1)

#: What becomes of a world: part of it is that of another world.
Morph = Callable[[World, World], World]


def records(entity: str, share: float) -> Morph:
    """Some rows of an entity come, go, or are others."""

    def morph(world: World, other: World) -> World:
        random = Random(f"{entity} {world.project.project_id}")  # noqa: S311 - the same each time
        own, others = (keyed(entity, each.records[entity]) for each in (world, other))
        for key in sorted(own.keys() | others.keys(), key=str):
            if random.random() < share:
                row = others.get(key)
                if row is None:
                    own.pop(key)
                else:
                    own[key] = {**row, "source_system": world.project.source_system}
        return replace(world, records={**world.records, entity: [*own.values()]})

    return morph


def elsewhere(world: World, other: World) -> World:
    """It is in another zone."""
    return replace(world, project=replace(world.project, timezone=other.project.timezone))


def paid_otherwise(world: World, _: World) -> World:
    """It has another currency."""
    return replace(world, project=replace(world.project, currency="CHF"))


def came_earlier(world: World, _: World) -> World:
    """Who has done nothing so far has been there for longer."""
    rows = [
        {**row, "active_from": row["active_from"] - 40 * DAY} if row["rep_id"] == "kim" else row
        for row in world.records["reps"]
    ]
    return replace(world, records={**world.records, "reps": rows})


def open_otherwise(world: World, other: World) -> World:
    """It has other hours and days off."""
    return replace(world, weeks=other.weeks, exceptions=other.exceptions)


def aim_otherwise(world: World, other: World) -> World:
    """Other targets, which the currency of the project has nothing to do with."""
    return replace(world, targets=other.targets)


def stop_or_go_on(world: World, _: World) -> World:
    """It counts no more, or again."""
    return replace(world, project=replace(world.project, is_active=not world.project.is_active))


MORPHS: tuple[Morph, ...] = (
    records("activities", 0.03),
    records("activities", 1),
    records("pipeline_items", 0.2),
    records("sales", 0.2),
    records("reps", 0.3),
    elsewhere,
    open_otherwise,
    aim_otherwise,
    stop_or_go_on,
    came_earlier,
    paid_otherwise,
    stop_or_go_on,
)

#: The instant of each build, and how far the list of what happens before it has turned.
STEPS = (
    (AS_OF, 0),
    (AS_OF + 34 * DAY, 5),
    (AS_OF - 2 * DAY, 8),
)

FORECASTS = ("sales_forecast", "sales_forecast_backtest")


def build(dbt: WarmDbt, as_of: datetime, *, is_first: bool = False) -> None:
    """Builds the tables under test, and of what they are made of what depends on the instant."""
    layers = ("",) if is_first else (",path:models/intermediate", ",path:models/kpis")
    dbt.run(
        *(f"+{name}{layer}" for name in GRAIN for layer in layers),
        variables={"as_of": as_of.isoformat()},
    )


def forecasts() -> dict[str, set[tuple[object, ...]]]:
    """What the tables of forecasts say."""
    return {
        name: {
            tuple(value for column, value in row.items() if column != "updated_at")
            for row in table(name)
        }
        for name in FORECASTS
    }


@pytest.mark.usefixtures("database")
def test_builds_of_what_changed_are_those_of_everything(dbt: WarmDbt) -> None:
    worlds = [random_world(seed) for seed in SEEDS]
    load(worlds)
    build(dbt, AS_OF, is_first=True)
    for step, (as_of, turned) in enumerate(STEPS):
        for number, world in enumerate(worlds):
            morph = MORPHS[(number + turned) % len(MORPHS)]
            other = random_world(100 * (step + 1) + number, as_of, world.project.project_id)
            worlds[number] = replace(morph(world, other), as_of=as_of)
            change(world, worlds[number])
        build(dbt, as_of)

        expected = kpis(worlds)
        for name in GRAIN:
            found = differences(name, expected[name], table(name))
            assert not found, (step, len(found), found[:SHOWN])

    # All forecasts once more; then a table that somebody takes away, and builds alone, from what
    # other models no longer hold.
    told = forecasts()
    variables = {"as_of": STEPS[-1][0].isoformat()}
    made_anew = ("int_forecast_days+,path:models/intermediate", *FORECASTS)
    dbt.run(*made_anew, variables=variables, full_refresh=True)
    assert told == forecasts()
    with connect("owner") as session:
        session.execute("drop table intermediate.int_subject_forecasts cascade")
    dbt.run("int_subject_forecasts", variables=variables)
    dbt.run(*made_anew, variables=variables)
    assert told == forecasts()


SATURDAY = 6

#: Tables that are built by period.
BY_PERIOD = (
    *("call_volume", "agreement_kpis", "list_out_kpis", "sales_conversion_rates"),
    *("revenue_efficiency", "bdr_leaderboard", "kpi_target_attainment"),
)


def periods(name: str, *, since: datetime) -> set[tuple[str, date]]:
    """Project and first day of the weeks and months of which a table has rows built since."""
    return {
        (row["project_id"], start_of(*_period(row)))
        for row in table(name)
        if row["updated_at"] > since
    }


def scores(project: str) -> set[Decimal]:
    """All that stand in the leaderboard of a project."""
    return {row["score"] for row in table("bdr_leaderboard") if row["project_id"] == project}


def made_by() -> dict[tuple[str, date], set[str]]:
    """The transactions that made the forecasts, by project and day they are made for."""
    with connect("owner") as session:
        rows = session.execute(
            "select project_id, made_for_date, array_agg(distinct xmin::text)"
            " from intermediate.int_subject_forecasts group by 1, 2"
        ).fetchall()
    return {(project, day): by for project, day, by in rows}


def _period(row: dict[str, Any]) -> tuple[str, date]:
    """The week or month that a row is of; a day's is its week."""
    if "month" in row:
        return "month", row["month"]
    kind = row["period_type"]
    return ("week" if kind == "day" else kind), row["period_start"]


@pytest.mark.usefixtures("database")
def test_only_periods_of_what_changed_are_built_anew(dbt: WarmDbt) -> None:
    changing_teams = replace(random_world(10), targets=())
    load([random_world(0), random_world(1), changing_teams])
    with connect("owner") as session:
        session.execute(
            "insert into raw_files.pipeline_items"
            " (source_system, project_id, item_id, rep_id, stage, created_at, proposal_at)"
            " values (%s, 'p10', 'new', 'bob', 'PROPOSAL', '2024-10-01', '2024-11-01 12:00')",
            [changing_teams.project.source_system],
        )
    build(dbt, AS_OF, is_first=True)
    first = max(row["updated_at"] for row in table("call_volume"))
    made_first = made_by()
    with connect("owner") as session:
        ((day,),) = session.execute(
            "update raw_files.activities set rep_id = 'bob' where project_id = 'p1' and activity_id"
            " = (select activity_id from raw_files.activities where project_id = 'p1'"
            " and activity_type = 'call' and rep_id = 'ann' and is_deleted is not true"
            " and scheduled_at is null and created_at < completed_at"
            " and %s - completed_at between interval '30 days' and interval '80 days' limit 1)"
            " returning (completed_at at time zone 'America/New_York')::date",
            [AS_OF],
        ).fetchall()
    build(dbt, AS_OF)

    week, month = (start_of(period_type, day) for period_type in ("week", "month"))
    next_ones = {start_of("week", week + 7 * DAY), start_of("month", month + 31 * DAY)}
    built = {name: periods(name, since=first) for name in BY_PERIOD}
    assert built == {
        **{name: set() for name in BY_PERIOD},
        "call_volume": {("p1", week)},
        "revenue_efficiency": {("p1", month)},
        "kpi_target_attainment": {("p1", week), ("p1", month)},
        "bdr_leaderboard": {("p1", start) for start in {week, month} | next_ones},
    }
    assert {
        (row["project_id"], row["weekday"])
        for row in table("call_heatmap")
        if row["updated_at"] > first
    } == {("p1", day.isoweekday())}
    assert made_by() == made_first

    # What a score weighs is what all of them are made of; who changes teams has as many in a month.
    before = scores("p0")
    with connect("owner") as session:
        session.execute("update reference.score_weights set weight = 2 * weight")
        session.execute(
            "update raw_files.reps set active_from = case when active_to is null then"
            " date '2024-11-03' else active_from end, active_to = case when active_to is not null"
            " then date '2024-11-02' end where project_id = 'p10' and rep_id = 'bob'"
        )
        steps = dict(
            session.execute(
                "update raw_files.pipeline_items set"
                " closed_at = case project_id when 'p0' then %(at)s - interval '20 days' end,"
                " agreement_at = case project_id when 'p1' then %(at)s - interval '20 days' end"
                " where project_id in ('p0', 'p1')"
                " and (project_id, item_id) in (select project_id, min(item_id)"
                " from raw_files.pipeline_items where closed_at is null and agreement_at is null"
                " and is_deleted is not true and proposal_at < %(at)s - interval '40 days'"
                " group by 1) returning project_id, coalesce(closed_at, agreement_at)::date",
                {"at": AS_OF},
            ).fetchall()
        )
    build(dbt, AS_OF)
    assert scores("p0") == {2 * score for score in before}
    of_changing_teams = {("p10", date(2024, 11, 1)), ("p10", date(2024, 12, 1))}
    built_then = periods("agreement_kpis", since=first)
    assert {period for period in built_then if period[0] == "p10"} == of_changing_teams

    # From Sunday, the third of November, to Friday.
    weekdays = {
        row["weekday"]: row["updated_at"] > first
        for row in table("call_heatmap")
        if row["project_id"] == "p10"
    }
    assert weekdays == {weekday: weekday != SATURDAY for weekday in weekdays}
    assert SATURDAY in weekdays
    assert len(weekdays) > 1

    # Forecasts read of days up to the end of their months.
    for project, step in steps.items():
        made_anew = {
            day: by != made_first[of, day] for (of, day), by in made_by().items() if of == project
        }
        assert made_anew == {day: step < start_of("month", day + 31 * DAY) for day in made_anew}
        assert len({*made_anew.values()}) == 2

    # The other team's, of the same month.
    before_moved = max(row["updated_at"] for row in table("agreement_kpis"))
    with connect("owner") as session:
        session.execute(
            "update raw_files.pipeline_items set proposal_at = '2024-11-10 12:00'"
            " where project_id = 'p10' and item_id = 'new'"
        )
    build(dbt, AS_OF)
    assert periods("agreement_kpis", since=before_moved) == of_changing_teams

    # Of the month before a changed one, which is not built, what is told beside it.
    agreements = {
        (row["project_id"], row["subject_type"], row["subject_id"], row["month"]): row
        for row in table("agreement_kpis")
    }
    for (*subject, start), row in agreements.items():
        before_it = agreements.get((*subject, start_of("month", start - DAY)))
        assert row["agreements_previous_month"] == (before_it and before_it["agreements"])
