"""Working time by the cumulative calendar, held against a walk along the clock on the wall."""

import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from jobs.build import build
from stageline import config
from stageline.database import connect
from tests.conftest import TEMPLATE, TestServer, _clone
from tests.flow_database import CALENDAR_MODELS, dbt_project, store_schedule
from tests.working_time_oracle import Calendar, Schedule, Walk, Window, changes_of_the_clock

DAY = 86400

#: Zone -> year in which its clocks change as they should be tried.
ZONES = {
    "UTC": 2024,
    "Europe/Kyiv": 2024,
    "Europe/Amsterdam": 2050,  # after the years that zone files list one by one
    "America/New_York": 2004,
    "America/St_Johns": 2010,  # one minute past midnight
    "Asia/Kathmandu": 2024,  # +05:45, no changes
    "Asia/Tehran": 2022,  # not on a Sunday
    "Africa/Cairo": 2024,  # Thursday to Friday, at midnight
    "Africa/Casablanca": 2025,  # for Ramadan
    "Australia/Lord_Howe": 2024,  # by half an hour
    "Pacific/Apia": 2011,  # 30 December was left out
}
#: The zone whose windows begin and end at any second, and the one looked at over eight months.
BY_THE_SECOND = "Australia/Lord_Howe"
LONG = "Europe/Kyiv"
#: Zones in which a group has calendars of its own, beside those of the project.
WITH_A_GROUP = ("Europe/Kyiv", "Africa/Cairo")


def groups(zone: str) -> list[str | None]:
    return [None, "workshop"] if zone in WITH_A_GROUP else [None]


POSITIONS = """\
{{ config(materialized='table') }}
with positions as (
    select
        instants.*,
        scopes.calendar_scope_id,
        {{ working_position('instants.second', 'calendar') }} as position
    from intermediate.instants
    inner join {{ ref('int_calendar_scopes') }} as scopes
        on instants.project_id = scopes.project_id
        and instants.group_id is not distinct from scopes.stage_group_id
    left join {{ ref('int_working_calendar') }} as calendar
        on scopes.calendar_scope_id = calendar.calendar_scope_id
        and {{ day_of_second('instants.second') }} = calendar.utc_day
),
wanted as (
    select positions.*, position + seconds_left as due_position from positions
)
select
    wanted.project_id,
    wanted.group_id,
    wanted.second,
    wanted.seconds_left,
    wanted.position,
    {{ second_of_position('wanted.due_position', 'days') }} as due_second
from wanted
left join {{ ref('int_working_days') }} as days
    on wanted.calendar_scope_id = days.calendar_scope_id
    and {{ day_of_second('(wanted.due_position - 1)') }} = days.position_day
    and wanted.due_position > days.seconds_before
    and wanted.due_position <= days.seconds_before + days.seconds
"""


def second_of(day: date) -> int:
    return int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp())


class Dice:
    """Random calendars and instants of one zone."""

    def __init__(self, zone: str) -> None:
        self.random = random.Random(zone)  # noqa: S311 - the same ones in every run
        self.grain = 1 if zone == BY_THE_SECOND else 60

    def windows(self) -> list[Window]:
        """Up to three windows of a day, the last at times far into the next one."""
        kind = self.random.random()
        if kind < 0.15:
            return []
        if kind < 0.25:
            return [(0, DAY)]
        if kind < 0.35:
            return [(22 * 3600, 30 * 3600)]
        edges = sorted(
            self.random.randrange(0, DAY, 1800) + self.random.randrange(0, 900, self.grain)
            for _ in range(6)
        )
        found = [
            (opens, closes)
            for opens, closes in zip(edges[::2], edges[1::2], strict=True)
            if closes - opens >= 900
        ]
        if found and self.random.random() < 0.3:
            found[-1] = (
                found[-1][0],
                found[-1][0] + self.random.randrange(3600, DAY + 1, self.grain),
            )
        return found

    def calendar(self, first_day: date, end_day: date | None, group: str | None) -> list[Calendar]:
        """One that is in force in these days, or none."""
        kind = self.random.random()
        if kind < 0.15:
            return []
        if kind < 0.25:
            return [Calendar({}, first_day, end_day, group, is_always_open=True)]
        if kind < 0.3:
            return [Calendar({}, first_day, end_day, group)]  # always closed
        week = {weekday: self.windows() for weekday in range(1, 8)}
        return [Calendar(week, first_day, end_day, group)]


@dataclass
class Case:
    """A zone's calendars, and the stretches of time that are looked at."""

    zone: str
    schedule: Schedule
    walks: list[Walk]
    instants: list[tuple[Walk, int, int]]  # walk, second, seconds left


def case(zone: str) -> Case:
    """Calendars that change around the days on which the zone's clocks do."""
    dice = Dice(zone)
    year = ZONES[zone]
    changes = changes_of_the_clock(zone, year) or [
        second_of(date(year, 3, 1)),
        second_of(date(year, 12, 31)),
    ]
    # What is left out in Apia is a whole day; Morocco's clocks go back for Ramadan and forth again.
    days = [datetime.fromtimestamp(second, UTC).date() for second in changes]
    calendars = []
    for group in groups(zone):
        turns = sorted({day + timedelta(days=dice.random.randint(-3, 3)) for day in days * 3})
        for first_day, end_day in zip([date(1900, 1, 1), *turns], [*turns, None], strict=True):
            calendars += dice.calendar(first_day, end_day, group)
    # Each of the scopes is there, whatever the dice say.
    for group in groups(zone):
        if not any(calendar.group_id == group for calendar in calendars):
            calendars += [Calendar({}, date(1900, 1, 1), None, group)]
    exceptions = {
        day + timedelta(days=dice.random.randint(-4, 4)): dice.random.choice([None, *range(1, 8)])
        for day in days * 3
    }
    schedule = Schedule(zone, calendars, exceptions)

    around = 1 if dice.grain == 1 else 4
    stretches = [(second_of(day) - around * DAY, second_of(day) + around * DAY) for day in days]
    if zone == LONG:
        stretches = [(stretches[0][0], stretches[-1][1])]
    walks = [
        Walk(schedule, group, first, last, dice.grain)
        for first, last in stretches
        for group in groups(zone)
    ]
    edges = [
        second_of(day + timedelta(days=on)) + hour * 3600
        for day in days
        for on in (-1, 0, 1)
        for hour in (0, 21, 22)
    ]
    instants = []
    for walk in walks:
        seconds = [dice.random.randint(walk.first, walk.last) for _ in range(600)]
        seconds += [
            second + dice.random.choice((-60, -1, 0, 1, 60))
            for second in [*changes, *edges]
            if walk.first + 60 <= second <= walk.last - 60
        ]
        instants += [
            (walk, second, dice.random.choice((1, 60, 3600, 28800, dice.random.randint(1, DAY))))
            for second in sorted({walk.first, *seconds})
        ]
    return Case(zone, schedule, walks, instants)


def store(cases: list[Case]) -> None:
    """Puts the calendars into the settings, and the instants where the model reads them."""
    with connect("owner") as session, session.cursor() as cursor:
        for each in cases:
            store_schedule(cursor, "file", each.zone, each.schedule)
    with connect("transformer") as session, session.cursor() as cursor:
        cursor.execute(
            "create table intermediate.instants"
            " (project_id text, group_id text, second bigint, seconds_left bigint)"
        )
        with cursor.copy("copy intermediate.instants from stdin") as copy:
            for each in cases:
                for walk, second, seconds_left in each.instants:
                    copy.write_row((each.zone, walk.group_id, second, seconds_left))


@dataclass(frozen=True)
class Placed:
    """What the calendar says of every instant, by zone, group and second."""

    cases: list[Case]
    positions: dict[tuple[str, str | None, int], int]
    due: dict[tuple[str, str | None, int, int], int | None]
    calendar: list[tuple[Any, ...]]


@pytest.fixture(scope="module")
def placed(server: TestServer, short_folder: Path) -> Iterator[Placed]:
    """All zones in one database, built once, of the models that it takes."""
    folder = short_folder / "working_time"
    project = dbt_project(
        folder / "project", [*CALENDAR_MODELS, "intermediate/flow/int_working_days.sql"]
    )
    (project / "models/positions.sql").write_text(POSITIONS)
    cases = [case(zone) for zone in ZONES]
    with pytest.MonkeyPatch.context() as patch, _clone(server, TEMPLATE, folder, patch):
        store(cases)
        build(project=project)
        with connect("transformer") as session:
            rows = session.execute(
                "select project_id, group_id, second, seconds_left, position, due_second"
                " from intermediate.positions"
            ).fetchall()
            calendar = session.execute(
                "select calendar_scope_id, min(pieces), max(pieces), count(*),"
                " min(utc_day), max(utc_day), sum(seconds) = max(seconds_before + seconds)"
                " from intermediate.int_working_calendar group by calendar_scope_id"
            ).fetchall()
        yield Placed(
            cases,
            {(zone, group, second): position for zone, group, second, _, position, _ in rows},
            {(zone, group, second, left): due for zone, group, second, left, _, due in rows},
            calendar,
        )
    config.settings.cache_clear()


def told(zone: str, walk: Walk, second: int) -> str:
    return f"{zone} {walk.group_id}: {datetime.fromtimestamp(second, UTC):%F %T} UTC"


def test_working_time_is_what_the_clock_on_the_wall_shows(placed: Placed) -> None:
    wrong, compared = [], 0
    for each in placed.cases:
        for walk, second, _ in each.instants:
            start = placed.positions[each.zone, walk.group_id, walk.first]
            found = placed.positions[each.zone, walk.group_id, second] - start
            compared += 1
            if found != walk.until(second):
                wrong.append(f"{told(each.zone, walk, second)}: {found}, not {walk.until(second)}")
    assert wrong == []
    assert compared > 10_000


def test_a_limit_runs_out_at_the_first_second_by_which_so_much_was_worked(placed: Placed) -> None:
    wrong, compared = [], 0
    for each in placed.cases:
        for walk, second, seconds_left in each.instants:
            expected = walk.due(second, seconds_left)
            if expected is None:
                continue  # after the time that was walked along
            compared += 1
            found = placed.due[each.zone, walk.group_id, second, seconds_left]
            if found != expected:
                wrong.append(f"{told(each.zone, walk, second)} + {seconds_left}: {found}")
    assert wrong == []
    assert compared > 3_000


def test_no_time_runs_backwards_or_faster_than_the_clock(placed: Placed) -> None:
    by_scope: dict[tuple[str, str | None], list[tuple[int, int]]] = {}
    for (zone, group, second), position in placed.positions.items():
        by_scope.setdefault((zone, group), []).append((second, position))
    assert len(by_scope) == len(ZONES) + len(WITH_A_GROUP)
    for scope, points in by_scope.items():
        points.sort()
        for (second, position), (next_second, next_position) in itertools.pairwise(points):
            assert 0 <= next_position - position <= next_second - second, scope


def test_a_calendar_has_every_day_of_its_hundred_years_once(placed: Placed) -> None:
    days = (date(2100, 1, 1) - date(2000, 1, 1)).days
    first = second_of(date(2000, 1, 1)) // DAY
    assert len(placed.calendar) == len(ZONES) + len(WITH_A_GROUP)
    for scope, least, most, count, first_day, last_day, adds_up in placed.calendar:
        assert (count, first_day, last_day, adds_up) == (days, first, first + days - 1, True), scope
        assert least >= 0
        assert most <= 8
