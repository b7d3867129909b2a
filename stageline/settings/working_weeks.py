"""Weeks of working hours as operators write them. Pure: no database.

A week is written ``mon-fri 09:00-13:00 14:00-18:00; sat 10:00-14:00``: days, then the windows of
each of them; days that are not named are off. Windows without days are those of every day. A window
that ends at or before its beginning runs over midnight, as 22:00-06:00 does.
"""

import re
from dataclasses import dataclass

from stageline.errors import StagelineError

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")

#: What a day's windows may be at most: the working calendar holds eight stretches of a UTC day,
#: which is a part of two local days.
MOST_WINDOWS = 3

ALWAYS_OPEN = "24/7"
CLOSED = "closed"
PRESETS = {"mon-fri-9-18": "mon-fri 09:00-18:00"}

_DAY = 86400
_TIME = r"([0-9]{1,2}):([0-5][0-9])(?::([0-5][0-9]))?"
_WINDOW = re.compile(rf"{_TIME}-{_TIME}")
_HOW = "Write as in 'mon-fri 09:00-13:00 14:00-18:00; sat 10:00-14:00'."


@dataclass(frozen=True, order=True)
class Window:
    """A stretch of working time of a weekday (1 = Monday), in seconds of the clock since midnight;
    what is beyond 86400 belongs to the next day.
    """

    weekday: int
    opens: int
    closes: int


@dataclass(frozen=True)
class Week:
    """The working hours of a week; without windows it is closed, unless it is always open."""

    windows: tuple[Window, ...] = ()
    is_always_open: bool = False

    @property
    def is_closed(self) -> bool:
        """Whether no time of the week is worked."""
        return not self.windows and not self.is_always_open


def read_week(text: str) -> Week:
    """The week that a text means: a preset (``24/7``, ``mon-fri-9-18``), ``closed``, or windows.

    Raises:
        StagelineError: it is not written so, windows overlap, or a day has more than three.
    """
    given = text.strip().lower()
    if given in (ALWAYS_OPEN, CLOSED):
        return Week(is_always_open=given == ALWAYS_OPEN)
    windows: dict[int, list[Window]] = {}
    for part in PRESETS.get(given, given).split(";"):
        words = part.split()
        if not words:
            raise StagelineError(f"The hours {text!r} have an empty part. {_HOW}")
        days = list(range(1, 8)) if words[0][0].isdigit() else _days(words.pop(0))
        for day in days:
            if day in windows:
                raise StagelineError(
                    f"{DAYS[day - 1]} is given twice. Write all of its windows in one part."
                )
            windows[day] = _windows_of(day, words)
    week = Week(tuple(sorted(window for day in windows.values() for window in day)))
    if week.is_closed:
        raise StagelineError(
            "All days are off: no time would ever count, which is not 24/7. If that is meant,"
            " say closed; write 24/7 where every hour is worked."
        )
    _require_apart(week)
    return week


def written_week(week: Week) -> str:
    """A week in the form that `read_week` reads, days with the same windows together."""
    if week.is_always_open:
        return ALWAYS_OPEN
    if week.is_closed:
        return CLOSED
    by_day = {
        day: " ".join(_written(window) for window in week.windows if window.weekday == day)
        for day in range(1, 8)
    }
    parts: list[tuple[int, int, str]] = []
    for day, windows in by_day.items():
        if parts and parts[-1][1:] == (day - 1, windows):
            parts[-1] = (parts[-1][0], day, windows)
        elif windows:
            parts.append((day, day, windows))
    return "; ".join(
        f"{DAYS[first - 1]}{f'-{DAYS[last - 1]}' if last > first else ''} {windows}"
        for first, last, windows in parts
    )


def doubts(week: Week) -> list[str]:
    """What in a week is allowed, and hardly meant."""
    return [
        f"{_written(window)} loses the minute before midnight: write"
        f" {_clock(window.opens)}-24:00 if the day is worked to its end."
        for window in dict.fromkeys(Window(0, each.opens, each.closes) for each in week.windows)
        if window.closes == _DAY - 60
    ]


def read_weekday(text: str) -> int:
    """The number of a weekday, 1 = Monday.

    Raises:
        StagelineError: there is no such day.
    """
    if text.lower() not in DAYS:
        raise StagelineError(f"{text!r} is no day of the week. They are: {', '.join(DAYS)}.")
    return DAYS.index(text.lower()) + 1


def _days(text: str) -> list[int]:
    """The days of ``mon``, ``sat,sun`` or ``mon-fri``; ``fri-mon`` goes over the weekend."""
    days: list[int] = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        begins, ends = read_weekday(first), read_weekday(last or first)
        days += [(begins - 1 + on) % 7 + 1 for on in range((ends - begins) % 7 + 1)]
    return days


def _windows_of(day: int, words: list[str]) -> list[Window]:
    if words == ["off"]:
        return []
    if not words:
        raise StagelineError(f"{DAYS[day - 1]} has no hours: write windows behind it, or off.")
    if len(words) > MOST_WINDOWS:
        raise StagelineError(
            f"{DAYS[day - 1]} has {len(words)} windows; a day has {MOST_WINDOWS} at most."
        )
    return [_window(day, word) for word in words]


def _window(day: int, word: str) -> Window:
    parts = _WINDOW.fullmatch(word)
    if parts is None:
        raise StagelineError(f"{word!r} is no working hours. {_HOW}")
    numbers = [int(part or 0) for part in parts.groups()]
    opens, closes = (h * 3600 + m * 60 + s for h, m, s in (numbers[:3], numbers[3:]))
    if opens == closes:
        raise StagelineError(
            f"{word} ends when it begins. Write 00:00-24:00 for a whole day, off for none."
        )
    if closes < opens:
        closes += _DAY
    if opens >= _DAY or closes > opens + _DAY:
        raise StagelineError(f"{word} is not within a day: the latest time is 24:00, as an end.")
    return Window(day, opens, closes)


def _require_apart(week: Week) -> None:
    """Refuses windows that overlap, also over midnight, and from Sunday into Monday."""
    laps = [
        (window, (window.weekday - 1) * _DAY + window.opens, window.closes - window.opens)
        for window in week.windows
    ]
    for before, after in zip(laps, [*laps[1:], laps[0]], strict=True):
        gap = (after[1] - before[1]) % (7 * _DAY)
        if before is not after and gap < before[2]:
            raise StagelineError(
                f"{_with_day(before[0])} and {_with_day(after[0])} overlap: time would count"
                " twice. End the first before the second begins."
            )


def _with_day(window: Window) -> str:
    return f"{DAYS[window.weekday - 1]} {_written(window)}"


def _written(window: Window) -> str:
    is_over_midnight = _DAY < window.closes < window.opens + _DAY
    closes = window.closes - _DAY if is_over_midnight else window.closes
    return f"{_clock(window.opens)}-{_clock(closes)}"


def _clock(second: int) -> str:
    minutes, rest = divmod(second, 60)
    return f"{minutes // 60:02}:{minutes % 60:02}" + (f":{rest:02}" if rest else "")
