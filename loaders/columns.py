"""Reads whole columns: what ``loaders.values`` says for one value, at Arrow's speed.

Values in plain form (ISO times, plain numbers) are converted by Arrow, all at once. Whatever is not
in plain form goes through ``read_value``, each distinct text once, so there is one set of rules; a
property test holds the two ways against each other.
"""

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any
from zoneinfo import ZoneInfo

import pyarrow as pa
import pyarrow.compute as pc

from loaders.mapping import Reading
from loaders.values import (
    DECIMALS,
    FIRST_YEAR,
    LAST_YEAR,
    WHOLE_DIGITS,
    UnfitError,
    Value,
    read_value,
    unreadable,
)

TYPES: dict[str, pa.DataType] = {
    "text": pa.string(),
    "numeric": pa.decimal128(WHOLE_DIGITS + DECIMALS, DECIMALS),
    "integer": pa.int64(),
    "boolean": pa.bool_(),
    "date": pa.date32(),
    "timestamp": pa.timestamp("us", "UTC"),
}

_NUMBER = rf"^-?[0-9]{{1,{WHOLE_DIGITS}}}(\.[0-9]{{1,{DECIMALS}}})?$"
_INTEGER = r"^-?[0-9]{1,18}$"
_YEAR = r"(19|20|21)[0-9]{2}"
_CLOCK = r"[T ][0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]{1,6})?)?"
_NAIVE = rf"^{_YEAR}-[0-9]{{2}}-[0-9]{{2}}({_CLOCK})?$"
_AWARE = rf"^{_YEAR}-[0-9]{{2}}-[0-9]{{2}}{_CLOCK}(Z|[+-](0[0-9]|1[0-5]):?[0-5][0-9])$"
#: strptime formats that can be rewritten as ISO text at Arrow's speed, and the digits of each part.
_PARTS = {"Y": "[0-9]{4}", "m": "[0-9]{2}", "d": "[0-9]{2}", "H": "[0-9]{2}", "M": "[0-9]{2}"}
_PARTS |= {"S": "[0-9]{2}"}
_DAY = 86_400_000_000


@dataclass(frozen=True)
class Column:
    """A column as it lands.

    Attributes:
        values: One per row, of the field's type; null where there is none or it did not fit.
        problems: Row number within the batch -> why its value does not fit.
    """

    values: pa.Array
    problems: dict[int, str]


def read_column(cells: list[str | None] | pa.Array, reading: Reading) -> Column:
    """Reads all ``cells`` (text as in the file, or a typed column of a Parquet file)."""
    target = TYPES[reading.type]
    problems: dict[int, str] = {}
    given = cells if isinstance(cells, (pa.Array, pa.ChunkedArray)) else _strings(cells, problems)
    texts = pc.utf8_trim_whitespace(given.cast(pa.string()))
    if pa.types.is_timestamp(given.type) and reading.type == "timestamp" and not reading.format:
        plain = _typed(given, reading)
    else:
        plain = _plain(texts, reading)
    values, settled = plain if plain else (pa.nulls(len(texts), target), None)
    rest = pa.repeat(True, len(texts)) if settled is None else pc.invert(settled)
    if pc.any(rest).as_py():
        values = _by_value(texts, rest, values, reading, problems)
    return Column(values, problems)


def _strings(cells: list[str | None], problems: dict[int, str]) -> pa.Array:
    try:
        return pa.array(cells, pa.string())
    except UnicodeEncodeError:
        kept: list[str | None] = []
        for row, cell in enumerate(cells):
            reason = unreadable(cell) if cell is not None else None
            if reason is not None:
                problems[row] = reason
            kept.append(None if reason else cell)
        return pa.array(kept, pa.string())


def _by_value(
    texts: pa.Array, rows: pa.Array, values: pa.Array, reading: Reading, problems: dict[int, str]
) -> pa.Array:
    """``values``, with ``rows`` of them read by ``read_value``, each distinct text once."""
    asked = texts.filter(rows).dictionary_encode(null_encoding="encode")
    answers: list[Value | None] = []
    reasons: dict[int, str] = {}
    for code, text in enumerate(asked.dictionary.to_pylist()):
        try:
            answers.append(read_value(text, reading))
        except UnfitError as reason:
            answers.append(None)
            reasons[code] = str(reason)
    if reasons:
        for row, code in zip(
            pc.indices_nonzero(rows).to_pylist(), asked.indices.to_pylist(), strict=True
        ):
            if code in reasons:
                problems.setdefault(row, reasons[code])
    answered = pa.array(answers, TYPES[reading.type]).take(asked.indices)
    return pc.replace_with_mask(values, rows, answered)


def _plain(texts: pa.Array, reading: Reading) -> tuple[pa.Array, pa.Array] | None:
    """The column as Arrow converts it, and which rows are thereby settled; None: not for Arrow."""
    if reading.values or reading.empty or reading.choices:
        return None
    match reading.type:
        case "text":
            fits = _matches(texts, r"^[^\x00]+$")
            return texts, fits
        case "numeric" | "integer" if _plain_number(reading):
            fits = _matches(texts, _NUMBER if reading.type == "numeric" else _INTEGER)
            return _converted(texts, fits, reading)
        case "date" if reading.format is None:
            return _converted(texts, _matches(texts, r"^" + _YEAR + "-[0-9]{2}-[0-9]{2}$"), reading)
        case "timestamp" if reading.format is None:
            aware = _matches(texts, _AWARE)
            if pc.all(aware).as_py() or reading.zone is None:
                return _converted(texts, aware, reading)
            return _localized(texts, _matches(texts, _NAIVE), reading)
        case "timestamp" if (iso := _iso_parts(reading.format or "")) is not None:
            return _localized(_rewritten(texts, *iso), None, reading)
    return None


def _matches(texts: pa.Array, pattern: str) -> pa.Array:
    return pc.fill_null(pc.match_substring_regex(texts, pattern), False)


def _plain_number(reading: Reading) -> bool:
    return (
        reading.decimal == "."
        and reading.thousands is None
        and reading.scale is None
        and reading.round is None
    )


def _converted(
    texts: pa.Array, fits: pa.Array, reading: Reading
) -> tuple[pa.Array, pa.Array] | None:
    """Arrow's conversion of the rows in plain form; None where one of them is no real value."""
    chosen = pc.if_else(fits, texts, pa.scalar(None, pa.string()))
    try:
        values = chosen.cast(TYPES[reading.type])
    except pa.ArrowInvalid:  # the 30th of February, 25 o'clock: read_value finds and names them
        return None
    for bound, within in ((reading.least, pc.greater_equal), (reading.most, pc.less_equal)):
        if bound is not None and reading.type in {"numeric", "integer"}:
            number = values.cast(TYPES["numeric"])
            limit = pa.scalar(bound).cast(TYPES["numeric"])
            fits = pc.and_(fits, pc.fill_null(within(number, limit), False))
    return values, fits


def _localized(
    texts: pa.Array, fits: pa.Array | None, reading: Reading
) -> tuple[pa.Array, pa.Array] | None:
    """The instants of naive times in plain form, but for days on which clocks changed."""
    chosen = texts if fits is None else pc.if_else(fits, texts, pa.scalar(None, pa.string()))
    try:
        naive = chosen.cast(pa.timestamp("us"))
    except pa.ArrowInvalid:
        return None
    return _instants(naive, reading)


def _typed(given: pa.Array, reading: Reading) -> tuple[pa.Array, pa.Array] | None:
    """The instants of a column of timestamps; digits beyond microseconds are cut off."""
    try:
        # only digits may get lost: from coarser units, what is too far away is an error
        given = given.cast(pa.timestamp("us", given.type.tz), safe=given.type.unit != "ns")
    except pa.ArrowInvalid:
        return None
    return _instants(given, reading)


def _instants(given: pa.Array, reading: Reading) -> tuple[pa.Array, pa.Array] | None:
    if reading.values or reading.empty:
        return None
    first, after = (
        pa.scalar(datetime(year, 1, 1, tzinfo=UTC).replace(tzinfo=None), given.type)
        for year in (FIRST_YEAR, LAST_YEAR + 1)
    )
    within = pc.fill_null(pc.and_(pc.greater_equal(given, first), pc.less(given, after)), False)
    if given.type.tz is not None:
        return given.cast(TYPES["timestamp"]), within
    if reading.zone is None:
        return None
    chosen = pc.if_else(within, given, pa.scalar(None, given.type)).cast(pa.int64())
    day = pc.subtract(chosen, _remainder(chosen)).dictionary_encode()
    offsets = pa.array(
        [_offset_of_day(start.as_py(), reading.zone) for start in day.dictionary], pa.int64()
    ).take(day.indices)
    instants = pc.subtract(chosen, offsets).cast(TYPES["timestamp"])
    return instants, pc.is_valid(instants)


def _remainder(microseconds: pa.Array) -> pa.Array:
    """How far into its day each instant lies, also before 1970."""
    shift = 40_000 * _DAY  # more days than lie between 1900 and 1970, so that nothing is negative
    shifted = pc.add(microseconds, shift)
    return pc.subtract(shifted, pc.multiply(pc.divide(shifted, _DAY), _DAY))


@lru_cache(maxsize=100_000)
def _offset_of_day(start: int, zone: ZoneInfo) -> int | None:
    """The zone's offset (microseconds) on the local day that starts at ``start``, if it has one.

    Looked at hourly and with either reading of an ambiguous hour; no zone has ever changed its
    clocks there and back within one day.
    """
    midnight = datetime(1970, 1, 1, tzinfo=UTC).replace(tzinfo=None) + timedelta(microseconds=start)
    offsets = {
        (midnight + timedelta(hours=hour)).replace(tzinfo=zone, fold=fold).utcoffset()
        for hour in range(25)
        for fold in (0, 1)
    }
    if len(offsets) != 1:
        return None
    offset = offsets.pop() or timedelta()
    return offset // timedelta(microseconds=1)


@lru_cache(maxsize=100)
def _iso_parts(form: str) -> tuple[str, str] | None:
    """A pattern for texts of the format, and what rewrites them as ISO; None if it is too rich."""
    pattern, seen, index = "^", [], 0
    while index < len(form):
        if form[index] == "%":
            part = form[index + 1 : index + 2]
            if part not in _PARTS or part in seen:
                return None
            pattern += f"({_PARTS[part]})"
            seen.append(part)
            index += 2
        elif form[index].isalnum() or (form[index].isspace() and form[index] != " "):
            return None
        else:
            pattern += "\\" + form[index] if form[index] in r".\+*?()[]{}^$|" else form[index]
            index += 1
    if not {"Y", "m", "d"} <= set(seen) or ("S" in seen and "M" not in seen):
        return None
    if ("M" in seen) != ("H" in seen):
        return None
    order = {part: rf"\{seen.index(part) + 1}" for part in seen}
    iso = "{Y}-{m}-{d}"
    if "H" in order:
        iso += "T{H}:{M}" + (":{S}" if "S" in order else "")
    return pattern + "$", iso.format(**order)


def _rewritten(texts: pa.Array, pattern: str, replacement: str) -> pa.Array:
    fits = _matches(texts, pattern)
    chosen = pc.if_else(fits, texts, pa.scalar(None, pa.string()))
    return pc.replace_substring_regex(chosen, pattern=pattern, replacement=replacement)


def content(arrays: list[pa.Array]) -> pa.Array:
    """One text per row that differs exactly where the row's values differ."""
    parts: list[Any] = []
    for array in arrays:
        if pa.types.is_timestamp(array.type):  # as numbers they are written ten times as fast
            array = array.cast(pa.int64())
        # a length before each value: no value can pass for two, and none for an absent one
        text = array.cast(pa.string())
        size = pc.fill_null(pc.binary_length(text).cast(pa.string()), "-")
        parts += [size, pc.fill_null(text, "")]
    return pc.binary_join_element_wise(*parts, ":")


def fingerprints(texts: pa.Array) -> pa.Array:
    """A short text per row that is equal where ``texts`` (from ``content``) are, and only there."""
    return pa.array(
        [
            hashlib.blake2b(text, digest_size=16).hexdigest()
            for text in texts.cast(pa.binary()).to_pylist()
        ],
        pa.string(),
    )
