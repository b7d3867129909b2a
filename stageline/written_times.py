"""Times as people and programs write them: what files and CRMs are both read by.

Pure functions; nothing is guessed.
"""

import re
from datetime import UTC, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

_ISO = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})"
    r"(?:[T ]([0-9]{2}):([0-9]{2})(?::([0-9]{2})(?:[.,]([0-9]{1,9}))?)?"
    r" ?(?:([Zz])|([+-])([0-9]{2})(?::?([0-9]{2}))?)?)?"
)


def read_iso(text: str) -> datetime | None:
    """The date and time that ``text`` shows in the form of ISO 8601, with its offset if it has one.

    A date alone is its midnight. Digits beyond the microsecond are cut off. None where ``text``
    does not have that form.

    Raises:
        ValueError: it has, but there is no such date, time or offset; with the reason.
    """
    parts = _ISO.fullmatch(text)
    if parts is None:
        return None
    year, month, day, hour, minute, second, fraction, utc, sign, off_hours, off_minutes = (
        parts.groups()
    )
    return datetime(
        int(year),
        int(month),
        int(day),
        int(hour or 0),
        int(minute or 0),
        int(second or 0),
        int((fraction or "0")[:6].ljust(6, "0")),
        tzinfo=UTC if utc else _offset(sign, off_hours, off_minutes),
    )


def instants_of(naive: datetime, zone: ZoneInfo) -> tuple[datetime, ...]:
    """The instants (UTC) at which clocks in ``zone`` showed ``naive``, the earlier one first.

    There is none where clocks went forward over it, and there are two where they went back over it.
    """
    first = naive.replace(tzinfo=zone, fold=0)
    second = naive.replace(tzinfo=zone, fold=1)
    instant = first.astimezone(UTC)
    if instant.astimezone(zone).replace(tzinfo=None) != naive:
        return ()
    if first.utcoffset() == second.utcoffset():
        return (instant,)
    return (instant, second.astimezone(UTC))


def _offset(sign: str | None, hours: str | None, minutes: str | None) -> timezone | None:
    if sign is None or hours is None:
        return None
    if int(hours) > 15 or int(minutes or 0) > 59:
        raise ValueError("its offset from UTC is impossible")
    distance = timedelta(hours=int(hours), minutes=int(minutes or 0))
    return timezone(-distance if sign == "-" else distance)
