"""Slots of schedules: which instants a cron line asks for, over changes of clocks, too."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise, takewhile
from zoneinfo import ZoneInfo

import pytest

from jobs.slots import latest, slots

KYIV, UTC_ZONE = ZoneInfo("Europe/Kyiv"), ZoneInfo("UTC")
LORD_HOWE = ZoneInfo("Australia/Lord_Howe")  # clocks change by half an hour


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def within(schedule: str, zone: ZoneInfo, after: str, until: str) -> list[str]:
    found = takewhile(lambda slot: slot <= at(until), slots(schedule, zone, at(after)))
    return [f"{slot:%d %H:%M}" for slot in found]


def test_plain_days() -> None:
    assert within("0 5 * * *", KYIV, "2026-01-01T03:00", "2026-01-04") == ["02 03:00", "03 03:00"]


def test_a_slot_of_the_hour_that_is_left_out_moves_by_it() -> None:
    # 29 March 2026: 03:00 to 04:00 does not exist in Kyiv.
    found = within("30 3 * * *", KYIV, "2026-03-28T12:00", "2026-03-30T12:00")
    assert found == ["29 01:30", "30 00:30"]


def test_slots_that_meet_are_one() -> None:
    found = within("30 * * * *", KYIV, "2026-03-28T23:00", "2026-03-29T03:00")
    assert found == ["28 23:30", "29 00:30", "29 01:30", "29 02:30"]


def test_every_hour_runs_in_both_hours_of_the_same_name() -> None:
    # 25 October 2026: 03:00 to 04:00 comes twice in Kyiv.
    found = within("0 * * * *", KYIV, "2026-10-24T23:00", "2026-10-25T03:00")
    assert found == ["25 00:00", "25 01:00", "25 02:00", "25 03:00"]


def test_once_a_day_runs_in_the_first_of_two_hours() -> None:
    found = within("30 3 * * *", KYIV, "2026-10-24T12:00", "2026-10-26T12:00")
    assert found == ["25 00:30", "26 01:30"]


@pytest.mark.parametrize("zone", [KYIV, UTC_ZONE, LORD_HOWE], ids=str)
@pytest.mark.parametrize(
    "schedule", ["*/15 * * * *", "0 * * * *", "0 5 * * *", "15 2 * * *", "45 1-3 * * 0,6"]
)
def test_the_latest_slot_is_the_last_one_that_came(schedule: str, zone: ZoneInfo) -> None:
    for change in (at("2026-03-29"), at("2026-10-25"), at("2026-04-04"), at("2026-10-03")):
        coming = slots(schedule, zone, change - timedelta(days=9))
        before, following = next(coming), next(coming)
        now = change - timedelta(hours=6)
        while now < change + timedelta(hours=30):
            now += timedelta(minutes=17)
            while following <= now:
                before, following = following, next(coming)
            assert latest(schedule, zone, now) == before


def test_a_quarter_of_an_hour_is_the_same_everywhere() -> None:
    for zone in (KYIV, LORD_HOWE):
        coming = slots("*/15 * * * *", zone, at("2026-10-24T00:00"))
        found = [next(coming) for _ in range(200)]
        assert all(later - slot == timedelta(minutes=15) for slot, later in pairwise(found))
