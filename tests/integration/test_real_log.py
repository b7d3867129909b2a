"""A log of the shape of a real one, from its file to the figures that people quote of it.

Case by case, the time from a case's first event to its last, by the clock and by the office hours
of Amsterdam, equals a computation in Python that looks at each local day.
"""

import csv
import random
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import psycopg
import pytest

from loaders.files import load_file
from stageline import config
from stageline.config import PROJECT_ROOT
from stageline.database import connect
from tests.conftest import DATABASE, TEMPLATE, TestServer, _clone
from tests.flow_database import store_schedule
from tests.warm_dbt import WarmDbt
from tests.working_time_oracle import Calendar, Schedule

CASES = 400
OFFICE = [(9 * 3600, 13 * 3600), (14 * 3600, 18 * 3600)]
SCHEDULE = Schedule("Europe/Amsterdam", [Calendar(dict.fromkeys(range(1, 6), OFFICE))])

#: Case -> its events, in the order of the file.
Log = dict[str, list[tuple[str, datetime]]]


def random_log() -> Log:
    """Cases of 1 to 25 events over two years: most are over within the hour, some take months."""
    dice = random.Random(2011)  # noqa: S311 - the same log in every run
    log: Log = {}
    for number in range(CASES):
        at = datetime(2010, 10, 1, tzinfo=UTC) + timedelta(
            milliseconds=dice.randrange(600 * 86_400_000)
        )
        pace = dice.choice((60, 600, 600, 86_400, 14 * 86_400))
        events = log[f"case-{number}"] = []
        for _ in range(min(25, 1 + int(dice.expovariate(0.18)))):
            events.append((f"T{dice.randint(1, 27):02} Some step", at))
            if dice.random() > 0.05:  # else the next one comes at the same instant
                at += timedelta(milliseconds=dice.randrange(1000 * pace))
    return log


def worked(start: datetime, end: datetime, zone: ZoneInfo) -> int:
    """Seconds of office hours between two instants, local day by local day."""
    begin, finish = (int(instant.timestamp()) for instant in (start, end))
    day, last = (instant.astimezone(zone).date() for instant in (start, end))
    total = 0
    while day <= last:
        if day.isoweekday() <= 5:
            for opens, closes in OFFICE:
                total += max(
                    0, min(finish, _at(day, closes, zone)) - max(begin, _at(day, opens, zone))
                )
        day += timedelta(days=1)
    return total


def _at(day: date, second: int, zone: ZoneInfo) -> int:
    return int(datetime.combine(day, time(second // 3600), zone).timestamp())


@dataclass(frozen=True)
class Measured:
    """The log, and what the models make of its cases: seconds and working seconds."""

    log: Log
    cases: dict[str, tuple[int, int]]
    visits: int


@pytest.fixture(scope="module")
def measured(server: TestServer, dbt: WarmDbt, short_folder: Path) -> Iterator[Measured]:
    """The log loaded by the command, and built."""
    folder = short_folder / "real_log"
    folder.mkdir()
    log = random_log()
    with (folder / "events.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("entity_id", "stage", "at", "seq"))
        for case, events in log.items():
            writer.writerows(
                (case, stage, at.isoformat(), place) for place, (stage, at) in enumerate(events)
            )
    with (
        pytest.MonkeyPatch.context() as patch,
        _clone(server, TEMPLATE, folder, patch, DATABASE) as owner,
    ):
        with connect("owner") as session, session.cursor() as cursor:
            store_schedule(cursor, "file", "permits", SCHEDULE)
        mapping = PROJECT_ROOT / "docs/examples/receipt_events.yml"
        load_file(folder / "events.csv", "stage_events", mapping_path=mapping, project_id="permits")
        dbt.run("+int_stage_intervals")
        with psycopg.connect(**owner.libpq()) as session:
            rows = session.execute(
                "select entity_id, coalesce(sum(seconds), 0)::bigint,"
                " coalesce(sum(working_seconds), 0)::bigint, count(*)"
                " from intermediate.int_stage_intervals group by entity_id"
            ).fetchall()
        yield Measured(
            log,
            {case: (clock, working) for case, clock, working, _ in rows},
            sum(r[3] for r in rows),
        )
    config.settings.cache_clear()


def expected(log: Log, zone: str) -> dict[str, tuple[int, int]]:
    """By case, its seconds and its working seconds in a zone."""
    found = {}
    for case, events in log.items():
        first, last = (pick(at for _, at in events) for pick in (min, max))
        seconds = int(last.timestamp()) - int(first.timestamp())
        found[case] = (seconds, worked(first, last, ZoneInfo(zone)))
    return found


def test_every_case_takes_as_long_as_it_took(measured: Measured) -> None:
    assert measured.cases == expected(measured.log, "Europe/Amsterdam")


def test_the_file_has_what_the_figures_could_hide(measured: Measured) -> None:
    """Hours taken in UTC, or events of one instant lost, would show."""
    in_utc = expected(measured.log, "UTC")
    wrong = sum(in_utc[case] != told for case, told in measured.cases.items())
    assert wrong > CASES / 4
    assert measured.visits == len(
        {(case, *event) for case, events in measured.log.items() for event in events}
    )
    clock = [seconds for seconds, _ in measured.cases.values()]
    assert statistics.mean(clock) > 5 * statistics.median(clock)
