"""Slots of a schedule: the instants at which its cron line asks for a run, in its zone.

Where clocks are put forward, a slot of the hour that is left out moves by that hour, and two that
meet are one. Where clocks are put back, a line that asks for every hour (or every few) runs in both
hours of the same name, any other one in the first alone.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from heapq import heappop, heappush
from zoneinfo import ZoneInfo

from croniter import croniter

#: No slot moves further than this where clocks change.
_SHIFT = timedelta(hours=3)


def slots(schedule: str, zone: ZoneInfo, after: datetime) -> Iterator[datetime]:
    """The slots later than an instant, in UTC and in order, without end.

    Args:
        schedule: Cron line of five fields.
        zone: In which it is meant.
        after: An instant.
    """
    held: list[datetime] = []
    wall = after.astimezone(zone).replace(tzinfo=None) - _SHIFT
    for local in croniter(schedule, wall).all_next(datetime):
        instants = _instants(schedule, zone, local)
        while held and held[0] <= instants[0] - _SHIFT:
            slot = heappop(held)
            if slot > after:
                yield slot
                after = slot
        for instant in instants:
            heappush(held, instant)


def latest(schedule: str, zone: ZoneInfo, until: datetime) -> datetime:
    """The last slot that is not later than an instant, in UTC; arguments as of `slots`."""
    found: list[datetime] = []
    wall = until.astimezone(zone).replace(tzinfo=None) + _SHIFT
    for local in croniter(schedule, wall).all_prev(datetime):
        instants = _instants(schedule, zone, local)
        if found and instants[0] < until - 2 * _SHIFT:
            break
        found += [instant for instant in instants if instant <= until]
    return max(found)


def _instants(schedule: str, zone: ZoneInfo, local: datetime) -> list[datetime]:
    """When clocks of a zone show a time for which the schedule asks: once, or twice."""
    first, second = (local.replace(tzinfo=zone, fold=fold).astimezone(UTC) for fold in (0, 1))
    is_every_hour = schedule.split()[1].startswith("*")
    return [first, second] if is_every_hour and second > first else [first]
