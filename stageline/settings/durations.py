"""Durations as operators write them: 24:00, 24h, 90m, 1h30m."""

import re

from stageline.errors import StagelineError

_CLOCK = re.compile(r"([0-9]{1,5}):([0-5][0-9])(?::([0-5][0-9]))?")
_UNITS = re.compile(r"(?=.)(?:([0-9]{1,5})h)?(?:([0-9]{1,6})m)?")


def read_duration(text: str, what: str) -> int:
    """The seconds that a text in hours and minutes means; ``what`` begins the sentence of an error.

    Raises:
        StagelineError: it is not written so, or is nothing.
    """
    parts = _CLOCK.fullmatch(text) or _UNITS.fullmatch(text)
    if parts is None:
        raise StagelineError(
            f"{what} {text!r} is no duration. Write hours and minutes as 24:00, 0:30, 24h or 90m."
        )
    hours, minutes, *seconds = (int(part or 0) for part in parts.groups())
    duration = hours * 3600 + minutes * 60 + sum(seconds)
    if duration == 0:
        raise StagelineError(f"{what} {text!r} is nothing: it has to be longer than that.")
    return duration


def written_duration(seconds: int) -> str:
    """Seconds as ``h:mm``, or ``h:mm:ss`` where they are no whole minutes."""
    minutes, rest = divmod(seconds, 60)
    return f"{minutes // 60}:{minutes % 60:02}" + (f":{rest:02}" if rest else "")
