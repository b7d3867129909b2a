"""What schedules come to: the runs of the next day, and whether promises can be kept by them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import takewhile

from jobs.refresh_config import Group
from jobs.slots import slots


@dataclass
class Forecast:
    """What a group's schedule comes to.

    Attributes:
        slots: Its slots.
        latest: Of a promise after a slot: the longest time from a slot to the end of its run. Of a
            promise of age: the largest age that its tables come to. None: nothing is known yet.
    """

    slots: list[datetime] = field(default_factory=list)
    latest: timedelta | None = None

    def is_kept(self, group: Group) -> bool | None:
        """Whether its promise can be kept; None where nothing is known yet."""
        return None if self.latest is None else self.latest <= group.promised


def forecast(
    groups: Mapping[str, Group],
    typical: Mapping[str, float],
    now: datetime,
    hours: int = 24,
) -> dict[str, Forecast]:
    """Plays the schedules through, one run after the other, groups that are due together as one.

    Args:
        groups: All there are.
        typical: Seconds that a run of a group takes; of those that run together the longest.
        now: When it begins.
        hours: How long it lasts.
    """
    end = now + timedelta(hours=hours)
    found = {
        name: Forecast(
            list(takewhile(lambda slot: slot <= end, slots(group.schedule, group.zone, now)))
        )
        for name, group in groups.items()
    }
    waiting = sorted((slot, name) for name, each in found.items() for slot in each.slots)
    began: dict[str, datetime] = {}
    free = now
    while waiting:
        begins = max(free, waiting[0][0])
        due = {name: slot for slot, name in waiting if slot <= begins}
        waiting = [(slot, name) for slot, name in waiting if slot > begins]
        free = begins + timedelta(seconds=max(typical.get(name, 0.0) for name in due))
        for name, slot in due.items():
            if name in typical:
                _take(found[name], groups[name], slot, began.get(name), free)
            began[name] = begins
    return found


def _take(
    found: Forecast, group: Group, slot: datetime, began: datetime | None, done: datetime
) -> None:
    """Notes the end of a run: ``began`` is when the one before it had begun."""
    since = slot if group.never_older_than is None else began
    if since is not None:
        found.latest = max(found.latest or timedelta(0), done - since)
