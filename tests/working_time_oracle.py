"""Working time by looking at the clock on the wall, step by step: slow, and too plain to be wrong.

A second is worked if the clock then shows a time within a window of the calendar that is in force
on that local day. Windows that go past midnight belong to the day on which they open. A group's own
calendar goes before the project's; where neither is in force, every second counts.
"""

import bisect
import itertools
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from functools import cached_property
from zoneinfo import ZoneInfo

_DAY = 86400

#: First and last second of working time of a local day; over 86,400 it is the next day.
Window = tuple[int, int]


@dataclass(frozen=True)
class Calendar:
    """A week of working hours from a day on.

    Attributes:
        windows: By weekday, 1 = Monday.
        first_day, end_day: When it is in force; the end is excluded, None = none.
        group_id: Stage group; None = those of the project without a calendar of their own.
    """

    windows: dict[int, list[Window]]
    first_day: date = date(1900, 1, 1)
    end_day: date | None = None
    group_id: str | None = None
    is_always_open: bool = False

    def hours(self, weekday: int) -> list[Window]:
        return [(0, _DAY)] if self.is_always_open else self.windows.get(weekday, [])


@dataclass
class Schedule:
    """When a project works.

    Attributes:
        exceptions: By local day, the weekday whose hours are worked instead; None = a holiday.
    """

    timezone: str
    calendars: list[Calendar]
    exceptions: dict[date, int | None] = field(default_factory=dict)

    def hours(self, day: date, group_id: str | None) -> list[Window]:
        """Working hours that begin on a local day."""
        in_force = [
            calendar
            for calendar in self.calendars
            if calendar.first_day <= day
            and (calendar.end_day is None or day < calendar.end_day)
            and calendar.group_id in (None, group_id)
        ]
        if not in_force:
            return [(0, _DAY)]
        # At most one of the group's and one of the project's.
        calendar = max(in_force, key=lambda found: found.group_id is not None)
        weekday = self.exceptions.get(day, day.isoweekday())
        return [] if weekday is None else calendar.hours(weekday)


@dataclass
class Walk:
    """What is worked between two instants.

    Attributes:
        first, last: Seconds since 1970; a whole number of steps apart.
        step: Seconds at a time; every window and every change of the clocks begins with a step.
    """

    schedule: Schedule
    group_id: str | None
    first: int
    last: int
    step: int = 60

    @cached_property
    def _worked_before(self) -> list[int]:
        zone = ZoneInfo(self.schedule.timezone)
        hours: dict[date, list[Window]] = {}
        worked = []
        for second in range(self.first, self.last, self.step):
            wall = datetime.fromtimestamp(second, zone)
            day = wall.date()
            if day not in hours:
                yesterday = self.schedule.hours(day - timedelta(days=1), self.group_id)
                hours[day] = self.schedule.hours(day, self.group_id) + [
                    (opens - _DAY, closes - _DAY) for opens, closes in yesterday
                ]
            shown = wall.hour * 3600 + wall.minute * 60 + wall.second
            worked.append(self.step * any(o <= shown < c for o, c in hours[day]))
        return [0, *itertools.accumulate(worked)]

    def until(self, second: int) -> int:
        """Seconds worked from the first instant to ``second``."""
        whole, rest = divmod(second - self.first, self.step)
        before = self._worked_before[whole]
        is_worked = rest and self._worked_before[whole + 1] > before
        return before + (rest if is_worked else 0)

    def due(self, start: int, limit: int) -> int | None:
        """The earliest second by which ``limit`` seconds after ``start`` were worked."""
        wanted = self.until(start) + limit
        steps = bisect.bisect_left(self._worked_before, wanted)
        if steps == len(self._worked_before):
            return None  # after the walk
        return self.first + steps * self.step - (self._worked_before[steps] - wanted)


def changes_of_the_clock(timezone: str, year: int) -> list[int]:
    """Seconds since 1970 of a year at which a zone's clocks change."""
    zone = ZoneInfo(timezone)

    def offset(second: int) -> timedelta | None:
        return datetime.fromtimestamp(second, zone).utcoffset()

    found = []
    begin = int(datetime(year, 1, 1, tzinfo=UTC).timestamp())
    for second in range(begin, begin + 366 * _DAY, 3600):
        if offset(second) != offset(second + 3600):
            found.append(
                next(
                    s for s in range(second + 60, second + 3601, 60) if offset(s) != offset(second)
                )
            )
    return found
