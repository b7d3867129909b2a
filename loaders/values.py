"""Reads one value: text becomes what its field holds, or a reason why it does not fit.

Pure functions, exact throughout: numbers never pass through binary floating point, and a time whose
instant would have to be guessed is refused.
"""

import re
from datetime import UTC, date, datetime, timedelta
from decimal import ROUND_HALF_EVEN, Context, Decimal
from zoneinfo import ZoneInfo

from loaders.mapping import Ambiguous, Reading
from stageline.written_times import instants_of, read_iso

Value = str | Decimal | int | bool | date | datetime

#: Digits that a number may have before and after the point: those of decimal(38, 9).
WHOLE_DIGITS, DECIMALS = 29, 9
#: Years that an instant or a date may lie in. Outside are placeholders (0001, 9999) and slips.
FIRST_YEAR, LAST_YEAR = 1900, 2199
#: Enough digits that no multiplication of a value and a scale is rounded.
_EXACT = Context(prec=200, rounding=ROUND_HALF_EVEN)

_NUMBER = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3})?")
_TRUE = frozenset({"true", "t", "yes", "y", "1"})
_FALSE = frozenset({"false", "f", "no", "n", "0"})


class UnfitError(ValueError):
    """A value does not fit its field; the message is the reason, for a person to read."""


def read_value(text: str | None, reading: Reading) -> Value | None:
    """The value that ``text`` stands for in the field of ``reading``; None if there is none.

    Raises:
        UnfitError: it does not fit, with the reason.
    """
    text = _meant(text, reading)
    if text is None and reading.default is not None:
        text = _meant(reading.default, reading)
    if text is None:
        if reading.required:
            raise UnfitError("is empty, and must not be")
        return None
    match reading.type:
        case "text":
            return _read_text(text, reading)
        case "numeric":
            return _within(_read_number(text, reading), text, reading)
        case "integer":
            return int(_within(_read_integer(text, reading), text, reading))
        case "boolean":
            return _read_boolean(text)
        case "date":
            return _read_date(text, reading)
        case "timestamp":
            return _read_instant(text, reading)
    raise AssertionError(reading.type)


def localize(naive: datetime, zone: ZoneInfo, ambiguous: Ambiguous) -> datetime:
    """The instant (UTC) at which clocks in ``zone`` showed ``naive``.

    Raises:
        UnfitError: they never did (clocks went forward), or they did twice and ``ambiguous`` is
            ``reject``.
    """
    instants = instants_of(naive, zone)
    if not instants:
        raise UnfitError(
            f"{naive.isoformat(' ')} did not exist in {zone.key}: clocks went forward over it"
        )
    if len(instants) > 1 and ambiguous == "reject":
        raise UnfitError(
            f"{naive.isoformat(' ')} occurred twice in {zone.key}: clocks went back over it"
            " (the mapping may say `ambiguous: earlier` or `later`)"
        )
    return instants[0 if ambiguous == "earlier" else -1]


def unreadable(text: str) -> str | None:
    """Why a database cannot keep ``text``, or None if it can."""
    if "\0" in text:
        return "holds a NUL character, which a database cannot keep"
    for character in text:
        if "\udc80" <= character <= "\udcff":
            byte = f"0x{ord(character) - 0xDC00:02X}"
            return f"holds the byte {byte}, which the file's encoding does not have"
        if "\ud800" <= character <= "\udfff":
            return "holds half of a character (a lone surrogate)"
    return None


def _meant(text: str | None, reading: Reading) -> str | None:
    """``text`` trimmed and translated by the value map; None for what means "no value"."""
    if text is None:
        return None
    text = text.strip()
    if reading.values:
        folded = text.casefold()
        text = next((to for value, to in reading.values if value == folded), text).strip()
    if not text or (reading.empty and text.casefold() in reading.empty):
        return None
    return text


def _shown(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:57] + "...")


def _read_text(text: str, reading: Reading) -> str:
    if reason := unreadable(text):
        raise UnfitError(reason)
    if not reading.choices:
        return text
    if text.lower() not in reading.choices:
        raise UnfitError(f"{_shown(text)} is not one of {', '.join(reading.choices)}")
    return text.lower()


def _read_number(text: str, reading: Reading) -> Decimal:
    plain = text
    percent = reading.most == 1 and plain.endswith("%")
    if percent:
        plain = plain[:-1].rstrip()
    if reading.thousands:
        plain = _without_thousands(plain, reading)
    if reading.decimal != ".":
        if "." in plain:
            raise UnfitError(
                f"{_shown(text)} is not a number with the decimal mark {reading.decimal!r}"
            )
        plain = plain.replace(reading.decimal, ".")
    if not _NUMBER.fullmatch(plain):
        raise UnfitError(f"{_shown(text)} is not a number")
    number = Decimal(plain)
    if percent:
        number = _EXACT.multiply(number, Decimal("0.01"))
    elif reading.scale is not None:
        number = _EXACT.multiply(number, reading.scale)
    if number and number.adjusted() >= WHOLE_DIGITS:
        raise UnfitError(f"{_shown(text)} has more than {WHOLE_DIGITS} digits before the point")
    if reading.round is not None:
        number = number.quantize(Decimal(1).scaleb(-reading.round), context=_EXACT)
    step = Decimal(1).scaleb(-DECIMALS)
    exact = number.quantize(step, context=_EXACT)
    if exact != number:
        raise UnfitError(
            f"{_shown(text)} has more than {DECIMALS} decimals (the mapping may say `round: 2`)"
        )
    return exact


def _without_thousands(text: str, reading: Reading) -> str:
    mark = reading.thousands or ""
    if mark == " ":
        text = text.replace("\u00a0", " ").replace("\u202f", " ")
    if mark not in text:
        return text
    whole, *rest = re.split(rf"(?={re.escape(reading.decimal)})", text, maxsplit=1)
    groups = whole.lstrip("+-").split(mark)
    if not (
        1 <= len(groups[0]) <= 3
        and all(len(group) == 3 for group in groups[1:])
        and not any(mark in part for part in rest)
    ):
        raise UnfitError(f"{_shown(text)} is not a number with {mark!r} between thousands")
    return whole.replace(mark, "") + "".join(rest)


def _read_integer(text: str, reading: Reading) -> Decimal:
    number = _read_number(text, reading)
    if number != number.to_integral_value(context=_EXACT):
        raise UnfitError(f"{_shown(text)} is not a whole number")
    if not -(2**63) <= number < 2**63:
        raise UnfitError(f"{_shown(text)} is too large")
    return number


def _within(number: Decimal, text: str, reading: Reading) -> Decimal:
    if reading.least is not None and number < reading.least:
        raise UnfitError(f"{_shown(text)} is below {reading.least.normalize():f}")
    if reading.most is not None and number > reading.most:
        hint = " (percent? the mapping may say `scale: 0.01`)" if reading.most == 1 else ""
        raise UnfitError(f"{_shown(text)} is above {reading.most.normalize():f}{hint}")
    return number


def _read_boolean(text: str) -> bool:
    folded = text.lower()
    if folded in _TRUE:
        return True
    if folded in _FALSE:
        return False
    raise UnfitError(f"{_shown(text)} is neither true nor false")


def _read_date(text: str, reading: Reading) -> date:
    read = _read_time(text, reading)
    if reading.format in {"epoch", "epoch_ms"} and reading.zone is not None:
        read = read.astimezone(reading.zone)
    if reading.format is None and (read.hour, read.minute, read.second, read.microsecond) != (
        0,
        0,
        0,
        0,
    ):
        raise UnfitError(f"{_shown(text)} is a time of day, where a date is wanted")
    return _of_our_age(read, text).date()


def _read_instant(text: str, reading: Reading) -> datetime:
    read = _of_our_age(_read_time(text, reading), text)
    if read.tzinfo is not None:
        return read.astimezone(UTC)
    if reading.zone is None:
        raise UnfitError(
            f"{_shown(text)} has no time zone, and none is guessed (the mapping may say"
            " `time_zone: Europe/Kyiv`)"
        )
    return localize(read, reading.zone, reading.ambiguous)


def _of_our_age(read: datetime, text: str) -> datetime:
    if not FIRST_YEAR <= read.year <= LAST_YEAR:
        raise UnfitError(f"{_shown(text)} lies outside the years {FIRST_YEAR} to {LAST_YEAR}")
    return read


def _read_time(text: str, reading: Reading) -> datetime:
    """The date and time that ``text`` shows, with its offset if it has one."""
    if reading.format in {"epoch", "epoch_ms"}:
        return _read_epoch(text, milliseconds=reading.format == "epoch_ms")
    if reading.format is not None:
        try:
            # a format without %z gives a naive time on purpose: its zone is the mapping's business
            return datetime.strptime(text, reading.format)  # noqa: DTZ007
        except ValueError:
            raise UnfitError(f"{_shown(text)} does not have the format {reading.format}") from None
    try:
        read = read_iso(text)
    except ValueError as error:
        raise UnfitError(f"{_shown(text)} is no real date or time: {error}") from None
    if read is None:
        raise UnfitError(
            f"{_shown(text)} is not a date or time like 2024-01-31 or 2024-01-31T09:30:00Z"
            ' (the mapping may say `format: "%d.%m.%Y %H:%M"`)'
        )
    return read


def _read_epoch(text: str, *, milliseconds: bool) -> datetime:
    if not re.fullmatch(r"-?[0-9]{1,15}(\.[0-9]{1,6})?", text):
        raise UnfitError(
            f"{_shown(text)} is not a count of {'milli' if milliseconds else ''}seconds"
        )
    microseconds = int(Decimal(text) * (1000 if milliseconds else 1_000_000))
    try:
        return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=microseconds)
    except OverflowError:
        raise UnfitError(
            f"{_shown(text)} lies outside the years {FIRST_YEAR} to {LAST_YEAR}"
        ) from None
