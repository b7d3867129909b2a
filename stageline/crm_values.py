"""Reads what CRMs write, in webhooks and in the answers of their APIs: ids, instants, other values.

The same id, instant or amount is written as a number here and as text there (contracts keycrm 2.1,
pipedrive 1.3 and 1.10, hubspot 1.2). Pure functions. The reasons that they raise name what is wrong
and never quote the value, so they can be logged.
"""

import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

from stageline.written_times import instants_of, read_iso

#: Characters that an id and that any other value may have.
LONGEST_ID, LONGEST_TEXT = 200, 500
#: Years (UTC) that an instant may lie in. Outside are placeholders (0001, 9999) and slips.
FIRST_YEAR, LAST_YEAR = 2000, 2100

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST = datetime(FIRST_YEAR, 1, 1, tzinfo=UTC)
_AFTER_LAST = datetime(LAST_YEAR + 1, 1, 1, tzinfo=UTC)
_LIES_OUTSIDE = f"lies outside the years {FIRST_YEAR} to {LAST_YEAR}"
#: The span of instants as counts since 1970, by unit. The spans lie apart: a count tells its unit.
_COUNTS = tuple(
    (int(_FIRST.timestamp()) * per_second, int(_AFTER_LAST.timestamp()) * per_second, per_second)
    for per_second in (1, 1_000, 1_000_000)
)

_WHOLE = re.compile(r"(-?[0-9]+)\.0+")
_COUNT = re.compile(r"-?[0-9]{1,20}(?:\.[0-9]{1,20})?")
_MAIL_DATE = re.compile(
    r"(?:(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun), )?([0-9]{1,2}) (Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct"
    r"|Nov|Dec) ([0-9]{4}) ([0-9]{2}:[0-9]{2}(?::[0-9]{2})?) (?:([+-][0-9]{4})|GMT|UTC|UT|Z)"
)
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
#: What PostgreSQL cannot keep in a text: NUL, and halves of characters (lone surrogates).
_UNKEEPABLE = re.compile("[\0\ud800-\udfff]")


def identifier(value: object) -> str | None:
    """The id that ``value`` stands for; None for null and for empty text.

    5, 5.0, "5", "5.0" and " 5 " are one id; "05" is another.

    Raises:
        ValueError: it stands for none, with the reason.
    """
    match value:
        case str():
            written = value.strip()
            if whole := _WHOLE.fullmatch(written):
                written = whole[1]
        case None:
            return None
        case bool():
            raise ValueError("is true or false, not an id")
        case int():
            written = str(value)
        case float() | Decimal():
            written = _whole(Decimal(str(value)))
        case _:
            raise ValueError("is a list or an object, not an id")
    if len(written) > LONGEST_ID:
        raise ValueError(f"is longer than {LONGEST_ID} characters")
    if not written.isprintable():
        raise ValueError("holds characters that cannot be printed")
    return written or None


def text(value: object) -> str | None:
    """``value`` as text, a number with all digits it was written with; None for null and no text.

    Raises:
        ValueError: it is no single value, or no database can keep it; with the reason.
    """
    match value:
        case str():
            written = value
        case None:
            return None
        case bool():
            return "true" if value else "false"
        case int():
            written = str(value)
        case float() | Decimal():
            written = _digits(Decimal(str(value)))
        case _:
            raise ValueError("is a list or an object, not a value")
    if len(written) > LONGEST_TEXT:
        raise ValueError(f"is longer than {LONGEST_TEXT} characters")
    if _UNKEEPABLE.search(written):
        raise ValueError("holds a NUL character or half of a character (a lone surrogate)")
    return written if written.strip() else None


def instant(value: object, zone: ZoneInfo | None = None) -> datetime | None:
    """The instant (UTC) that ``value`` stands for; None for null and for empty text.

    It is a count of seconds, milliseconds or microseconds since 1970, as number or text; a date and
    time in the form of ISO 8601, in which a space may stand for the T; or one as in mail
    (RFC 2822). One without an offset is meant in ``zone``; where that is None, in UTC.

    Raises:
        ValueError: it stands for none, or for which one would have to be guessed; with the reason.
    """
    match value:
        case str():
            written = value.strip()
            if not written:
                return None
            read = _counted(Decimal(written)) if _COUNT.fullmatch(written) else _shown(written)
        case None:
            return None
        case bool():
            raise ValueError("is true or false, not a time")
        case int() | float() | Decimal():
            read = _counted(Decimal(str(value)))
        case _:
            raise ValueError("is a list or an object, not a time")
    if not FIRST_YEAR - 1 <= read.year <= LAST_YEAR + 1:
        raise ValueError(_LIES_OUTSIDE)
    read = _in_utc(read, zone)
    if not _FIRST <= read < _AFTER_LAST:
        raise ValueError(_LIES_OUTSIDE)
    return read


def _whole(number: Decimal) -> str:
    if not number.is_finite() or number.adjusted() >= LONGEST_ID:
        raise ValueError("is too large a number for an id")
    if number != number.to_integral_value():
        raise ValueError("is a number with a fraction, not an id")
    return str(int(number))


def _digits(number: Decimal) -> str:
    """``number`` without an exponent, which not every reader of the text would understand."""
    if not number.is_finite():
        raise ValueError("is no finite number")
    if abs(number.adjusted()) > LONGEST_TEXT:
        raise ValueError(f"is longer than {LONGEST_TEXT} characters")
    return f"{number:f}"


def _counted(count: Decimal) -> datetime:
    if count.is_finite():
        for first, after_last, per_second in _COUNTS:
            if first <= count < after_last:
                return _EPOCH + timedelta(microseconds=int(count * (1_000_000 // per_second)))
    raise ValueError(f"is no count since 1970 of a time in the years {FIRST_YEAR} to {LAST_YEAR}")


def _shown(written: str) -> datetime:
    try:
        read = read_iso(written) or _mailed(written)
    except ValueError:
        raise ValueError("is no real date or time") from None
    if read is None:
        raise ValueError("is in no form of time that is read without guessing")
    if ":" not in written:
        raise ValueError("is a date without a time of day")
    return read


def _mailed(written: str) -> datetime | None:
    parts = _MAIL_DATE.fullmatch(written)
    if parts is None:
        return None
    day, month, year, clock, offset = parts.groups()
    return read_iso(f"{year}-{_MONTHS.index(month) + 1:02}-{int(day):02} {clock}{offset or 'Z'}")


def _in_utc(read: datetime, zone: ZoneInfo | None) -> datetime:
    if read.tzinfo is not None:
        return read.astimezone(UTC)
    if zone is None:
        return read.replace(tzinfo=UTC)
    instants = instants_of(read, zone)
    if not instants:
        raise ValueError("did not exist in the project's zone: clocks went forward over it")
    if len(instants) > 1:
        raise ValueError("occurred twice in the project's zone: clocks went back over it")
    return instants[0]
