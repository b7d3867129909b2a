"""Tables that loaders fill: columns are declared once, and read without a guess or a silent loss.

A value that does not fit its column stays in the row as it came, in the column ``unreadable``; a
record without a key is kept as a reject. So what a CRM changes in its types is seen, and nothing of
it is lost.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from decimal import ROUND_HALF_EVEN, Context, Decimal
from functools import cached_property
from hashlib import sha256
from typing import Any, Literal

import pyarrow as pa

from loaders.columns import TYPES, content, fingerprints
from loaders.destination import FINGERPRINT
from loaders.values import DECIMALS, WHOLE_DIGITS
from stageline.crm_values import FIRST_YEAR, LAST_YEAR, identifier, instant, text

#: How a value is read: ``id`` is the same id whether written as number or text, ``text`` any text,
#: ``numeric`` an exact number with 9 decimals, ``timestamp`` an instant (UTC where it says no
#: offset), ``date`` a calendar day, ``json`` any value, as the text of JSON.
#: ``int32`` is an integer for columns that are no wider.
Type = Literal["id", "text", "numeric", "integer", "int32", "boolean", "date", "timestamp", "json"]

#: What a CRM answered: an object of JSON, numbers exact.
Record = Mapping[str, Any]

#: Most characters of a text; a longer one is unreadable.
LONGEST = 100_000

_ARROW = {"id": TYPES["text"], "json": TYPES["text"], "int32": pa.int32(), **TYPES}
_UNKEEPABLE = re.compile("[\0\ud800-\udfff]")
_EXACT = Context(prec=WHOLE_DIGITS + DECIMALS, rounding=ROUND_HALF_EVEN)
_LAST_DIGIT = Decimal(1).scaleb(-DECIMALS)
#: Numbers are found here as well: to Python 1 is True.
_TRUTHS = {True: True, False: False, "true": True, "false": False, "1": True, "0": False}
_TRUTHS |= {"True": True, "False": False}


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        name: Its name in the database.
        type: How its values are read.
        of: Where the value stands in a record, steps parted by dots, or a function that gets it;
            by default under the column's name.
    """

    name: str
    type: Type
    of: str | Callable[[Record], object] = ""

    @cached_property
    def find(self) -> Callable[[Record], object]:
        """Gives the value of a record as it came; None where there is none."""
        if callable(self.of):
            return self.of
        *steps, last = (self.of or self.name).split(".")

        def find(record: Record) -> object:
            inner: Any = record
            for step in steps:
                inner = inner.get(step)
                if not isinstance(inner, dict):
                    return None
            return inner.get(last)

        return find


@dataclass(frozen=True)
class Table:
    """A table that a loader fills, one per kind of record; the migrations create it.

    Beside the columns named here it has ``project_id``, ``unreadable`` (what did not fit, as JSON),
    ``fetched_at``, ``_dlt_load_id`` and ``_dlt_id`` (a fingerprint of the row).

    Attributes:
        dataset: Its schema.
        name: Its name.
        key: The columns that identify a row within a project; ids and instants, never empty.
        columns: Its columns.
        is_swept: It has the columns ``is_gone`` and ``gone_seen_at``, too, which say that the CRM
            no longer lists what it listed before.
        lands_last: Its rows say that those of other tables are complete, so they are loaded once
            those are committed.
    """

    dataset: str
    name: str
    key: tuple[str, ...]
    columns: tuple[Column, ...] = field(repr=False)
    is_swept: bool = False
    lands_last: bool = False

    @property
    def full_key(self) -> tuple[str, ...]:
        """The columns that identify a row."""
        return ("project_id", *self.key)

    @cached_property
    def readers(self) -> tuple[tuple[str, Callable[[Record], object], Callable[[Any], Any]], ...]:
        """Name, place and way of reading of each column."""
        return tuple((c.name, c.find, _READ[c.type]) for c in self.columns)


@dataclass
class Rows:
    """Rows of one table that have been read and wait to be loaded; of equal keys the last stays.

    Attributes:
        table: Their table.
        unreadable: Column -> how many of its values did not fit.
        rejects: Records without a key, each with the reason.
    """

    table: Table
    unreadable: dict[str, int] = field(default_factory=dict)
    rejects: list[tuple[str, str]] = field(default_factory=list)
    _rows: dict[tuple[Any, ...], dict[str, Any]] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def keys(self) -> list[tuple[Any, ...]]:
        """The keys of the rows within their project, in the order of `arrow`."""
        return list(self._rows)

    def read(self, records: Sequence[Record], fetched_at: datetime) -> None:
        """Reads what was fetched at an instant."""
        for record in records:
            row: dict[str, Any] = {"fetched_at": fetched_at}
            unfit: dict[str, object] = {}
            for name, find, read in self.table.readers:
                value = find(record)
                if value is None:
                    row[name] = None
                    continue
                try:
                    row[name] = read(value)
                except ValueError:
                    row[name], unfit[name] = None, value
            key = tuple(row[name] for name in self.table.key)
            if None in key:
                missing = self.table.key[key.index(None)]
                self.rejects.append((_json(record), f"without a readable {missing}"))
                continue
            for name in unfit:
                self.unreadable[name] = self.unreadable.get(name, 0) + 1
            row["unreadable"] = _json(unfit) if unfit else None
            self._rows[key] = row

    def arrow(self, project_id: str) -> pa.Table:
        """The rows as they go into the database."""
        rows = list(self._rows.values())
        types = {column.name: _ARROW[column.type] for column in self.table.columns}
        types["unreadable"] = TYPES["text"]
        arrays = {name: pa.array([row[name] for row in rows], kind) for name, kind in types.items()}
        marks = fingerprints(content(list(arrays.values())))
        if self.table.is_swept:  # whatever is fetched is there
            arrays["is_gone"] = pa.repeat(False, len(rows))
            arrays["gone_seen_at"] = pa.nulls(len(rows), TYPES["timestamp"])
        return pa.table(
            {
                "project_id": pa.repeat(project_id, len(rows)),
                **arrays,
                "fetched_at": pa.array([row["fetched_at"] for row in rows], TYPES["timestamp"]),
                FINGERPRINT: marks,
            }
        )

    def clear(self) -> None:
        """Forgets the rows and the rejects, not the counts."""
        self._rows.clear()
        self.rejects.clear()


def rejects_of(dataset: str) -> Table:
    """The table of a schema that keeps records which fit into none."""
    return Table(
        dataset,
        "rejects",
        ("reject_id",),
        (
            Column("reject_id", "id", lambda r: sha256(r["record"].encode()).hexdigest()),
            Column("table_name", "text"),
            Column("record", "text"),
            Column("reason", "text"),
        ),
    )


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


def _json(value: object) -> str:
    written = json.dumps(value, ensure_ascii=False, sort_keys=True, default=_plain)
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


_READ: dict[Type, Callable[[Any], Any]] = {
    "id": identifier,
    "text": _text,
    "numeric": _numeric,
    "integer": _integer,
    "int32": _int32,
    "boolean": _boolean,
    "date": _date,
    "timestamp": _timestamp,
    "json": _json,
}
