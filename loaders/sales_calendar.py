"""When the made-up reps of ``loaders.sales_reps`` work, and when they call. Pure: no clock, no I/O.

Everything that happens there happens within working hours, so a moment is one number: the count of
working days since the first one that is known, times the seconds of a day, plus the local time of
day in seconds. Moments compare as instants do, and "two working days later" is a sum.
"""

from bisect import bisect, bisect_left
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from itertools import accumulate
from random import Random
from zoneinfo import ZoneInfo

#: Days after a window on which a story that begins in it may go on, at most.
_AFTERWARDS = 500

DAY = 86_400
HOUR = 3_600
MINUTE = 60
QUARTER = 15 * MINUTE

#: Days off, by month and day: the same in every year, so that no table of movable feasts is needed.
#: No stretch of 90 days is without one of them.
HOLIDAYS: Mapping[tuple[int, int], str] = {
    (1, 1): "New Year",
    (3, 8): "Women's Day",
    (5, 1): "Labour Day",
    (6, 28): "Constitution Day",
    (8, 24): "Independence Day",
    (10, 1): "Defenders' Day",
    (12, 25): "Christmas",
}

#: How much is done in a month (January first) and on a weekday (Monday first), 1 = as usual.
OF_MONTH = (0.95, 1.0, 1.05, 1.05, 1.0, 0.95, 0.88, 0.85, 1.05, 1.1, 1.05, 0.85)
OF_WEEKDAY = (0.9, 1.15, 1.15, 1.1, 0.75)

#: How many of a day's calls fall into an hour, from 8 o'clock on: the dip is lunch.
_OF_HOUR = (0.3, 0.9, 1.3, 1.2, 0.55, 0.3, 0.95, 1.25, 1.1, 0.65)
_FIRST_HOUR = 8
_LAST_SECOND = (_FIRST_HOUR + len(_OF_HOUR)) * HOUR + 40 * MINUTE
_HOURS = list(accumulate(_OF_HOUR))


def drawn_from(seed: str) -> Random:
    """Where chance comes from."""
    return Random(seed)  # noqa: S311 - made-up data keeps no secret


def holidays(first: date, last: date) -> dict[date, str]:
    """The days off from ``first`` to ``last``, both included, with their names."""
    return {
        date(year, month, day): name
        for year in range(first.year, last.year + 1)
        for (month, day), name in HOLIDAYS.items()
        if first <= date(year, month, day) <= last
    }


@dataclass(frozen=True)
class Window:
    """The time that is told of.

    Attributes:
        as_of: The instant at which it is told; nothing that happens later is known.
        first, last: Days in ``zone``, both included: leads come in from ``first`` to the day before
            that of ``as_of``, and nothing is planned for a day after ``last``.
        zone: Where the reps work.
    """

    as_of: datetime
    first: date
    last: date
    zone: ZoneInfo

    @property
    def today(self) -> date:
        """The day of ``as_of`` in the zone."""
        return self.as_of.astimezone(self.zone).date()


class WorkingDays:
    """The working days of a stretch of time, and moments on them.

    Attributes:
        days: The working days.
        weights: How much is done on each, 1 = as usual.
    """

    def __init__(self, window: Window) -> None:
        """Monday to Friday but for `HOLIDAYS`, from the first day of ``window`` on."""
        first, last = window.first, window.last + timedelta(days=_AFTERWARDS)
        off = holidays(first, last)
        every = [first + timedelta(days=n) for n in range((last - first).days + 1)]
        self.days = [day for day in every if day.isoweekday() <= 5 and day not in off]
        self.weights = [OF_MONTH[day.month - 1] * OF_WEEKDAY[day.weekday()] for day in self.days]
        self._most = max(OF_WEEKDAY) * max(OF_MONTH)
        self._zone = window.zone
        self._midnights: dict[tuple[int, int], int] = {}

    def index(self, day: date) -> int:
        """The number of the first working day on or after ``day``."""
        return bisect_left(self.days, day)

    def instant(self, moment: int) -> int:
        """Seconds since 1970 (UTC) at which the clocks of the zone show ``moment``."""
        number, second = divmod(moment, DAY)
        # by the hour: a zone may change its clocks at any of them
        key = (number, second // HOUR)
        start = self._midnights.get(key)
        if start is None:
            hour = datetime.combine(self.days[number], time(key[1]), self._zone)
            start = int(hour.astimezone(UTC).timestamp()) - key[1] * HOUR
            self._midnights[key] = start
        return start + second

    def arrival(self, random: Random, days: range) -> int:
        """A moment on one of ``days``: the more is done on it, and the earlier, the likelier.

        Early ones have the time to become something, so that the days are filled evenly in the end.
        """
        while True:
            share = random.random()
            number = days.start + int(share * len(days))
            if random.random() * self._most < self.weights[number] * (1 - 0.75 * share):
                return number * DAY + self.time_of_day(random)

    def time_of_day(self, random: Random) -> int:
        """A time at which people call, to the minute, in seconds since midnight."""
        hour = bisect(_HOURS, random.random() * _HOURS[-1])
        return (_FIRST_HOUR + hour) * HOUR + int(random.random() * 60) * MINUTE

    def slot(self, random: Random, after: int, least: int, most: int) -> int:
        """A quarter of an hour to book, ``least`` (1 or more) to ``most`` working days on."""
        start = after // DAY + least
        while True:
            number = start + int(random.random() * (most - least + 1))
            if random.random() * max(OF_WEEKDAY) < OF_WEEKDAY[self.days[number].weekday()]:
                return number * DAY + self.time_of_day(random) // QUARTER * QUARTER

    def later(self, random: Random, after: int, least: int, most: int) -> int:
        """A moment ``least`` to ``most`` working days on, in any case after ``after``."""
        number = after // DAY + least + int(random.random() * (most - least + 1))
        moment = number * DAY + self.time_of_day(random)
        return moment if moment > after else self.soon(random, after)

    def soon(self, random: Random, after: int) -> int:
        """A moment within the hours after ``after``; the next morning where the day is over."""
        moment = after + (10 + int(random.random() * 110)) * MINUTE
        if moment % DAY < _LAST_SECOND and moment // DAY == after // DAY:
            return moment
        morning = (after // DAY + 1) * DAY + 9 * HOUR
        return morning + int(random.random() * 60) * MINUTE
