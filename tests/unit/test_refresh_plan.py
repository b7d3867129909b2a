"""Whether promises can be kept by the schedules, given how long runs take."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from jobs.refresh_config import Group
from jobs.refresh_plan import forecast
from tests.refresh_groups import FLOW, MINUTE

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)

QUARTERLY = replace(FLOW, name="quarterly", never_older_than=20 * MINUTE)
DAILY = replace(
    QUARTERLY,
    name="daily",
    schedule="0 5 * * *",
    never_older_than=None,
    done_within=30 * MINUTE,
)


def latest(groups: list[Group], **seconds: float) -> dict[str, timedelta | None]:
    found = forecast({group.name: group for group in groups}, seconds, NOW)
    return {name: each.latest for name, each in found.items()}


def test_a_table_ages_from_one_begin_to_the_next_end() -> None:
    assert latest([QUARTERLY], quarterly=120) == {"quarterly": 17 * MINUTE}
    (found,) = forecast({"quarterly": QUARTERLY}, {"quarterly": 120}, NOW).values()
    assert len(found.slots) == 96
    assert found.is_kept(QUARTERLY) is True


def test_a_run_that_takes_too_long_breaks_its_promise() -> None:
    (found,) = forecast({"quarterly": QUARTERLY}, {"quarterly": 330}, NOW).values()
    assert found.latest == 20.5 * MINUTE
    assert found.is_kept(QUARTERLY) is False


def test_groups_that_are_due_together_share_a_run() -> None:
    # At five the day's run takes 20 minutes, and the quarter at 5:15 waits for it.
    assert latest([QUARTERLY, DAILY], quarterly=60, daily=1200) == {
        "quarterly": 35 * MINUTE,
        "daily": 20 * MINUTE,
    }


def test_what_never_ran_is_not_judged() -> None:
    (found,) = forecast({"daily": DAILY}, {}, NOW).values()
    assert found.latest is None
    assert found.is_kept(DAILY) is None
