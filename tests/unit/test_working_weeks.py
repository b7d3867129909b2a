"""Weeks of working hours and durations, as operators write them."""

import random

import pytest

from stageline.errors import StagelineError
from stageline.settings.durations import read_duration, written_duration
from stageline.settings.working_weeks import (
    DAYS,
    Week,
    Window,
    doubts,
    read_week,
    written_week,
)

HOUR = 3600

WEEKS: list[tuple[str, str, int]] = [
    ("24/7", "24/7", 0),
    ("mon-fri-9-18", "mon-fri 09:00-18:00", 5 * 9),
    ("MON-FRI 9:00-13:00 14:00-18:00; Sat 10:00-14:00", "", 5 * 8 + 4),
    ("22:00-06:00", "mon-sun 22:00-06:00", 7 * 8),
    ("00:00-24:00", "mon-sun 00:00-24:00", 7 * 24),
    ("mon 22:00-00:00", "mon 22:00-24:00", 2),
    ("mon 22:00-30:00", "mon 22:00-06:00", 8),
    ("mon 09:00-33:00", "mon 09:00-33:00", 24),
    ("sat,sun 10:00-11:00", "sat-sun 10:00-11:00", 2),
    ("fri-mon 10:00-11:00", "mon 10:00-11:00; fri-sun 10:00-11:00", 4),
    ("sun 20:00-04:00; mon 04:00-05:00", "mon 04:00-05:00; sun 20:00-04:00", 9),
    ("mon-fri 9:00-10:00; sat-sun off", "mon-fri 09:00-10:00", 5),
    ("mon 8:00-9:00 9:00-10:00 23:00-24:00", "mon 08:00-09:00 09:00-10:00 23:00-24:00", 3),
    ("closed", "closed", 0),
]


@pytest.mark.parametrize(("text", "written", "hours"), WEEKS)
def test_a_week_is_read_as_it_is_written(text: str, written: str, hours: int) -> None:
    week = read_week(text)
    assert sum(window.closes - window.opens for window in week.windows) == hours * HOUR
    assert written_week(week) == (written or "mon-fri 09:00-13:00 14:00-18:00; sat 10:00-14:00")
    assert read_week(written_week(week)) == week


def test_closed_is_not_always_open() -> None:
    assert read_week("closed") == Week()
    assert read_week("closed").is_closed
    assert not read_week("24/7").is_closed


NO_WEEKS = [
    ("mon-sun off", "All days are off: no time would ever count, which is not 24/7"),
    ("mon 09:00-13:00 12:00-18:00", "mon 09:00-13:00 and mon 12:00-18:00 overlap"),
    ("mon 09:00-13:00 09:00-10:00", "overlap"),
    ("mon 22:00-06:00; tue 05:00-07:00", "mon 22:00-06:00 and tue 05:00-07:00 overlap"),
    ("sun 22:00-06:00; mon 05:00-07:00", "sun 22:00-06:00 and mon 05:00-07:00 overlap"),
    ("06:00-05:00 04:30-04:45", "overlap"),
    ("mon 1:00-2:00 3:00-4:00 5:00-6:00 7:00-8:00", "mon has 4 windows; a day has 3 at most"),
    ("mon 09:00-09:00", "ends when it begins. Write 00:00-24:00"),
    ("mon 24:00-25:00", "not within a day"),
    ("mon 01:00-26:00", "not within a day"),
    ("mon 09:60-10:00", "no working hours"),
    ("mon 9-18", "no working hours"),
    ("mon 09:00-10:00; mon 11:00-12:00", "mon is given twice"),
    ("mon", "mon has no hours"),
    ("day 09:00-10:00", "'day' is no day of the week"),
    ("mon 09:00-10:00;", "empty part"),
    ("", "empty part"),
]


@pytest.mark.parametrize(("text", "said"), NO_WEEKS)
def test_what_is_no_week_is_refused_with_the_reason(text: str, said: str) -> None:
    with pytest.raises(StagelineError) as caught:
        read_week(text)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_day_that_ends_a_minute_early_is_doubted() -> None:
    (doubt,) = doubts(read_week("00:00-23:59"))
    assert "00:00-23:59 loses the minute before midnight: write 00:00-24:00" in doubt
    assert doubts(read_week("mon-fri-9-18")) == []


def test_overlaps_are_found_as_a_walk_through_the_minutes_finds_them() -> None:
    chance = random.Random(7)  # noqa: S311 - no secret
    refused = 0
    for _ in range(3000):
        windows = [
            (day, opens * 60, opens * 60 + chance.randint(1, 24) * 60)
            for day in range(7)
            for opens in chance.sample(range(24), chance.choice([0, 0, 1, 1, 2, 3]))
        ]
        minutes = [
            (day * 1440 + minute) % (7 * 1440)
            for day, opens, closes in windows
            for minute in range(opens, closes, 30)
        ]
        text = "; ".join(
            f"{DAYS[day]} "
            + " ".join(f"{o // 60}:00-{c // 60}:00" for each, o, c in windows if each == day)
            for day in sorted({day for day, _, _ in windows})
        )
        if not windows:
            continue
        if len(minutes) == len(set(minutes)):
            week = read_week(text)
            assert set(week.windows) == {Window(d + 1, o * 60, c * 60) for d, o, c in windows}
            assert read_week(written_week(week)) == week
        else:
            refused += 1
            with pytest.raises(StagelineError, match="overlap"):
                read_week(text)
    assert 500 < refused < 2900


@pytest.mark.parametrize(
    ("text", "seconds", "written"),
    [
        ("24:00", 86400, "24:00"),
        ("0:30", 1800, "0:30"),
        ("24h", 86400, "24:00"),
        ("90m", 5400, "1:30"),
        ("1h30m", 5400, "1:30"),
        ("100:05:07", 360307, "100:05:07"),
    ],
)
def test_a_duration_is_hours_and_minutes(text: str, seconds: int, written: str) -> None:
    assert read_duration(text, "The limit") == seconds
    assert written_duration(seconds) == written
    assert read_duration(written, "The limit") == seconds


@pytest.mark.parametrize("text", ["", "8", "1:5", "1:60", "-1:00", "8 h", "0:00", "0h", "1.5h"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(StagelineError, match=r"^The limit '"):
        read_duration(text, "The limit")
