"""Reads the values in a CRM's records: one by one, and whole columns at Arrow's speed.

Values in plain form are converted by Arrow, all at once. Whatever is not in plain form goes through
the reader of its type, so there is one set of rules; a property test holds the two ways against
each other.
"""

import re
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime
from decimal import ROUND_HALF_EVEN, Context, Decimal
from json.encoder import c_make_encoder, encode_basestring  # type: ignore[attr-defined]  # CPython
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc

from loaders.columns import TYPES
from loaders.values import DECIMALS, WHOLE_DIGITS
from stageline.crm_values import FIRST_YEAR, LAST_YEAR, LONGEST_ID, identifier, instant, text

#: How a value is read: ``id`` is the same id whether written as number or text, ``text`` any text,
#: ``numeric`` an exact number with 9 decimals, ``timestamp`` an instant (UTC where it says no
#: offset), ``date`` a calendar day, ``json`` any value, as the text of JSON.
#: ``int32`` is an integer for columns that are no wider.
Type = Literal["id", "text", "numeric", "integer", "int32", "boolean", "date", "timestamp", "json"]

#: Most characters of a text; a longer one is unreadable.
LONGEST = 100_000

#: How the values of each type are kept.
ARROW: dict[Type, pa.DataType] = {
    "id": TYPES["text"],
    "text": TYPES["text"],
    "numeric": TYPES["numeric"],
    "integer": TYPES["integer"],
    "int32": pa.int32(),
    "boolean": TYPES["boolean"],
    "date": TYPES["date"],
    "timestamp": TYPES["timestamp"],
    "json": TYPES["text"],
}

_UNKEEPABLE = re.compile("[\0\ud800-\udfff]")
_EXACT = Context(prec=WHOLE_DIGITS + DECIMALS, rounding=ROUND_HALF_EVEN)
_LAST_DIGIT = Decimal(1).scaleb(-DECIMALS)
#: Numbers are found here as well: to Python 1 is True.
_TRUTHS = {True: True, False: False, "true": True, "false": False, "1": True, "0": False}
_TRUTHS |= {"True": True, "False": False}

# Years that lie within those that are believed, whatever the offset from UTC.
_DAY = "20(?:0[1-9]|[1-9][0-9])-[0-9]{2}-[0-9]{2}"
_CLOCK = r"[T ][0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,6})?"
_OFFSET = "(?:Z|[+-](?:0[0-9]|1[0-5]):?[0-5][0-9])"
_NAIVE = f"^{_DAY}{_CLOCK}$"
#: The texts of each type that Arrow reads as its reader does.
_PLAIN: dict[Type, str] = {
    "id": "^[0-9A-Za-z_-]+$",
    "text": r"^[!-~][^\x00]*$",
    "numeric": rf"^-?[0-9]{{1,{WHOLE_DIGITS}}}(?:\.[0-9]{{1,{DECIMALS}}})?$",
    "integer": "^-?[0-9]{1,18}$",
    "int32": "^-?[0-9]{1,9}$",
    "date": f"^{_DAY}(?:{_CLOCK}{_OFFSET}?)?$",
    "timestamp": f"^{_DAY}{_CLOCK}{_OFFSET}$",
}
#: Of some types: bytes and longest length of texts that are in plain form in any order of bytes.
_LETTERS = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_PLAIN_BYTES: dict[Type, tuple[bytes, int]] = {
    "id": (_LETTERS + b"_-", LONGEST_ID),
    "text": (bytes(range(ord("!"), ord("~") + 1)), LONGEST),
}
#: Milliseconds since 1970, of years that are believed.
_MILLISECONDS = "^[1-3][0-9]{12}$"
#: Instants (microseconds since 1970) from 2001 to 2099.
_FIRST_PLAIN, _LAST_PLAIN = (
    int(datetime(year, 1, 1, tzinfo=UTC).timestamp()) * 1_000_000 for year in (2001, 2100)
)

#: Types of Python's values, other than text, that Arrow reads as the reader of each type does.
_NATURAL: dict[Type, set[type]] = {
    "id": {int},
    "text": {int},
    "numeric": {int, Decimal},
    "integer": {int},
    "int32": {int},
    "boolean": {bool},
}
#: Numbers up to this are read by Arrow; the largest that a column can hold are not.
_FAR_FROM_LIMIT: dict[Type, int] = {"id": 2**62, "text": 2**62, "integer": 2**62, "int32": 2**30}


def read_values(
    values: Sequence[object] | pa.Array, kind: Type
) -> tuple[pa.Array, dict[int, object]]:
    """What JSON values mean: an array of ``ARROW[kind]``, and by place those that do not fit.

    What does not fit, and what means no value, is null in the array.

    Args:
        values: As JSON is read by Python; or texts, or whole numbers of 64 bits, as Arrow reads it.
        kind: How they are read.
    """
    if isinstance(values, pa.Array):
        return _array(values, kind)
    types = set(map(type, values)) - {type(None)}
    if not types:
        return pa.nulls(len(values), ARROW[kind]), {}
    if types <= _NATURAL.get(kind, set()):
        natural = _natural(values, kind)
        if natural is not None:
            return natural, {}
    elif types == {str} and kind in _PLAIN:
        return _texts(values, kind)
    return _by_value(values, kind)


def _natural(values: Sequence[object], kind: Type) -> pa.Array | None:
    """Numbers and truths; None where one of them is for its reader."""
    try:
        if kind in {"numeric", "boolean"}:
            return pa.array(values, ARROW[kind])
        return _whole_numbers(pa.array(values, pa.int64()), kind)
    except (pa.ArrowInvalid, OverflowError):
        return None


def _whole_numbers(numbers: pa.Array, kind: Type) -> pa.Array | None:
    """Numbers of a type that has a limit; None where one of them is for its reader."""
    bounds = pc.min_max(numbers).as_py()
    if max(abs(bounds["min"]), abs(bounds["max"])) > _FAR_FROM_LIMIT[kind]:
        return None
    return numbers.cast(ARROW[kind])


def _array(values: pa.Array, kind: Type) -> tuple[pa.Array, dict[int, object]]:
    if values.null_count == len(values):
        return pa.nulls(len(values), ARROW[kind]), {}
    if pa.types.is_string(values.type) and kind in _PLAIN:
        return _plain_texts(values, kind)
    if pa.types.is_integer(values.type) and kind in _FAR_FROM_LIMIT:
        numbers = _whole_numbers(values, kind)
        if numbers is not None:
            return numbers, {}
    told = values.dictionary_encode()
    answers, unfit = _by_value(told.dictionary.to_pylist(), kind)
    places = enumerate(told.indices.to_pylist()) if unfit else ()
    return answers.take(told.indices), {
        place: unfit[code] for place, code in places if code in unfit
    }


def _texts(values: Sequence[object], kind: Type) -> tuple[pa.Array, dict[int, object]]:
    try:
        texts = pa.array(values, pa.string())
    except UnicodeEncodeError:  # half of a character
        return _by_value(values, kind)
    return _plain_texts(texts, kind)


def _plain_texts(texts: pa.Array, kind: Type) -> tuple[pa.Array, dict[int, object]]:
    if (at_once := _plain_at_a_glance(texts, kind)) is not None:
        return at_once, {}
    given = texts
    odd: list[int] = []
    if not pc.all(_in_plain_form(texts, kind)).as_py():
        texts = _tidied(texts, kind)
        is_odd = pc.fill_null(pc.invert(_in_plain_form(texts, kind)), False)
        odd = pc.indices_nonzero(is_odd).to_pylist()
    plain = pc.if_else(is_odd, pa.scalar(None, pa.string()), texts) if odd else texts
    if kind == "date":
        plain = pc.utf8_slice_codeunits(plain, 0, 10)
    try:
        read = plain.cast(ARROW[kind])
    except pa.ArrowInvalid:  # the 30th of February, 25 o'clock
        return _by_value(given.to_pylist(), kind)
    if odd and kind == "timestamp":
        is_count = pc.fill_null(pc.match_substring_regex(texts, _MILLISECONDS), False)
        counts = pc.if_else(is_count, texts, pa.scalar(None, pa.string())).cast(pa.int64())
        read = pc.coalesce(read, counts.cast(pa.timestamp("ms", "UTC")).cast(ARROW[kind]))
        is_odd = pc.and_not(is_odd, is_count)
        odd = pc.indices_nonzero(is_odd).to_pylist()
    if not odd:
        return read, {}
    answers, unfit = _by_value(given.take(pa.array(odd)).to_pylist(), kind)
    read = pc.replace_with_mask(read, is_odd, answers)
    return read, {odd[place]: value for place, value in unfit.items()}


def _plain_at_a_glance(texts: pa.Array, kind: Type) -> pa.Array | None:
    """The texts read, where the bytes of all of them together show that they are in plain form;
    None where each has to be looked at, which takes many times as long.
    """
    if kind not in _PLAIN_BYTES and kind != "timestamp":
        return None
    written = texts.buffers()[2].to_pybytes()
    if pc.sum(pc.binary_length(texts)).as_py() != len(written):  # of which others are a part
        return None
    if kind != "timestamp":
        plain, longest = _PLAIN_BYTES[kind]
        if written.translate(None, plain):
            return None
        sizes = pc.min_max(pc.binary_length(texts)).as_py()
        return texts if sizes["min"] > 0 and sizes["max"] <= longest else None
    # Arrow takes minutes and seconds for granted, and offsets of any size: with so many signs of
    # each kind there is no time that lacks a part, and all are in UTC.
    count, offsets = len(texts) - texts.null_count, written.count(b"+")
    if not (
        written.count(b":") == 2 * count + offsets
        and written.count(b"+00:00") == offsets
        and written.count(b"Z") + offsets == count
    ):
        return None
    try:
        read = texts.cast(ARROW[kind])
    except pa.ArrowInvalid:
        return None
    bounds = pc.min_max(read.cast(pa.int64())).as_py()
    return read if bounds["min"] >= _FIRST_PLAIN and bounds["max"] < _LAST_PLAIN else None


def _in_plain_form(texts: pa.Array, kind: Type) -> pa.Array:
    """Which texts Arrow reads as the reader does."""
    is_plain = pc.match_substring_regex(texts, _PLAIN[kind])
    longest = {"id": LONGEST_ID, "text": LONGEST}.get(kind)
    if longest is not None and texts.nbytes > longest:
        is_plain = pc.and_(is_plain, pc.less_equal(pc.binary_length(texts), longest))
    return is_plain


def _tidied(texts: pa.Array, kind: Type) -> pa.Array:
    """Null for an empty text; and a time without an offset is meant in UTC."""
    if kind == "timestamp":
        is_naive = pc.match_substring_regex(texts, _NAIVE)
        if pc.any(is_naive).as_py():
            texts = pc.if_else(is_naive, pc.binary_join_element_wise(texts, "Z", ""), texts)
    return pc.if_else(pc.equal(pc.binary_length(texts), 0), pa.scalar(None, pa.string()), texts)


def _by_value(values: Sequence[object], kind: Type) -> tuple[pa.Array, dict[int, object]]:
    read, unfit, answers = READERS[kind], {}, []
    for place, value in enumerate(values):
        try:
            answers.append(None if value is None else read(value))
        except ValueError:
            answers.append(None)
            unfit[place] = value
    return pa.array(answers, ARROW[kind]), unfit


def _text(value: object) -> str | None:
    written = value if isinstance(value, str) else text(value)
    if written is None or not written.strip():
        return None
    if len(written) > LONGEST or (not written.isascii() and _UNKEEPABLE.search(written)):
        raise ValueError("is too long, or holds what no database can keep")
    if "\0" in written:
        raise ValueError("holds a NUL character")
    return written


def _numeric(value: object) -> Decimal | None:
    match value:
        case bool() | list() | dict():
            raise ValueError("is no number")
        case str() if not value.strip():
            return None
        case Decimal():
            number = value
        case _:
            try:
                number = Decimal(str(value).strip())
            except ArithmeticError:
                raise ValueError("is no number") from None
    if not number.is_finite() or number.adjusted() >= WHOLE_DIGITS:
        raise ValueError("is no number that can be kept")
    exponent = number.as_tuple().exponent
    if isinstance(exponent, int) and exponent < -DECIMALS:
        return number.quantize(_LAST_DIGIT, context=_EXACT)
    return number


def _integer(value: object) -> int | None:
    number = _numeric(value)
    if number is None:
        return None
    if number != number.to_integral_value() or abs(number) >= 2**63:
        raise ValueError("is no whole number")
    return int(number)


def _int32(value: object) -> int | None:
    number = _integer(value)
    if number is not None and abs(number) >= 2**31:
        raise ValueError("is too large")
    return number


def _boolean(value: object) -> bool | None:
    if value == "":
        return None
    try:
        return _TRUTHS[value]
    except (KeyError, TypeError):
        raise ValueError("is neither true nor false") from None


def _date(value: object) -> date | None:
    written = _text(value)
    if written is None:
        return None
    read = date.fromisoformat(written.strip()[:10])
    if not FIRST_YEAR <= read.year <= LAST_YEAR:
        raise ValueError("lies outside the years that are believed")
    return read


def _timestamp(value: object) -> datetime | None:
    # The form that all CRMs use most is read at once.
    if isinstance(value, str) and len(value) in (20, 24) and value[-1] == "Z" and value[10] == "T":
        read = datetime.fromisoformat(value)
        if FIRST_YEAR <= read.year <= LAST_YEAR:
            return read
    return instant(value)


def as_json(value: object) -> str:
    written = "".join(_write_json(value, 0))
    if "\\u0000" in written or not written.isascii():
        # A NUL, and halves of characters, are nothing that jsonb can hold.
        written = _UNKEEPABLE.sub("�", written.replace("\\u0000", "�"))
    return written


def _plain(value: object) -> object:
    if isinstance(value, Decimal):
        return f"{value:f}"
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat()
    return str(value)


#: What writes a `json.JSONEncoder(ensure_ascii=False, sort_keys=True, default=_plain)`, which makes
#: another one for each value: that takes longer than the writing.
_write_json = c_make_encoder(None, _plain, encode_basestring, None, ": ", ", ", True, False, True)

#: The reader of each type: the value, None for none; ValueError where it does not fit.
READERS: dict[Type, Callable[[Any], Any]] = {
    "id": identifier,
    "text": _text,
    "numeric": _numeric,
    "integer": _integer,
    "int32": _int32,
    "boolean": _boolean,
    "date": _date,
    "timestamp": _timestamp,
    "json": as_json,
}
