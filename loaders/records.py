"""Tables that loaders fill: columns are declared once, and read without a guess or a silent loss.

A value that does not fit its column stays in the row as it came, in the column ``unreadable``; a
record without a key is kept as a reject. So what a CRM changes in its types is seen, and nothing of
it is lost.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import sha256
from itertools import chain
from typing import Any, TypeAlias, overload

import pyarrow as pa
import pyarrow.compute as pc

from loaders.columns import TYPES, content, fingerprints
from loaders.destination import FINGERPRINT
from loaders.record_values import Type, as_json, read_values

#: What a CRM answered: an object of JSON, numbers exact.
Record = Mapping[str, Any]

#: Records that are read together: Arrow has its price for each column, not for each value.
READ_TOGETHER = 3_000


#: Values of a column, as `read_values` takes them.
Values: TypeAlias = Sequence[object] | pa.Array


class Columns(Sequence[Record]):
    """Records that are kept as the values of columns, each under its column's name.

    Where there are many small ones, to make an object of each would take longer than to read them.

    Attributes:
        values: Name -> values, as many for each name.
    """

    def __init__(self, values: Mapping[str, Values]) -> None:
        self.values = values

    def __len__(self) -> int:
        return len(next(iter(self.values.values()), ()))

    @overload
    def __getitem__(self, place: int) -> Record: ...

    @overload
    def __getitem__(self, place: slice) -> "Columns": ...

    def __getitem__(self, place: int | slice) -> "Record | Columns":
        if isinstance(place, slice):
            return Columns({name: values[place] for name, values in self.values.items()})
        return {
            name: values[place].as_py() if isinstance(values, pa.Array) else values[place]
            for name, values in self.values.items()
        }

    @staticmethod
    def joined(parts: Sequence["Columns"]) -> "Columns":
        """All records of the parts, which have the same columns."""
        return Columns(
            {name: _joined([part.values[name] for part in parts]) for name in parts[0].values}
        )


def _joined(parts: Sequence[Values]) -> Values:
    if all(isinstance(part, pa.Array) for part in parts):
        return pa.concat_arrays(parts)
    return list(
        chain.from_iterable(
            part.to_pylist() if isinstance(part, pa.Array) else part for part in parts
        )
    )


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        name: Its name in the database.
        type: How its values are read.
        of: Where the value stands in a record, steps parted by dots, or a function that gets it;
            by default under the column's name.
        meant: What is meant by the values of many records that stand there, one for each.
    """

    name: str
    type: Type
    of: str | Callable[[Record], object] = ""
    meant: Callable[[list[Any]], list[object]] | None = None

    def found(self, records: Sequence[Record], known: dict[str, Sequence[Record]]) -> Values:
        """The values of all records as they came; None where there is none.

        Args:
            records: The records.
            known: Objects within the records by their path, for the next column's use.
        """
        if isinstance(records, Columns):
            return records.values[self.name]
        if callable(self.of):
            values = list(map(self.of, records))
        else:
            path, _, name = (self.of or self.name).rpartition(".")
            values = [each.get(name) for each in _objects(records, path, known)]
        return values if self.meant is None else self.meant(values)


def _objects(
    records: Sequence[Record], path: str, known: dict[str, Sequence[Record]]
) -> Sequence[Record]:
    """The object at a path of each record; an empty one where there is none."""
    if not path:
        return records
    if path not in known:
        outer, _, name = path.rpartition(".")
        known[path] = [
            found if isinstance(found := each.get(name), dict) else {}
            for each in _objects(records, outer, known)
        ]
    return known[path]


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


@dataclass
class Rows:
    """Rows of one table that have been read and wait to be loaded.

    Attributes:
        table: Their table.
        unreadable: Column -> how many of its values did not fit.
        rejects: Records without a key, each with the reason.
        size: Bytes that the rows take.
    """

    table: Table
    unreadable: dict[str, int] = field(default_factory=dict)
    rejects: list[tuple[str, str]] = field(default_factory=list)
    size: int = 0
    _count: int = 0
    _waiting: int = 0
    _raw: list[Record] = field(default_factory=list, repr=False)
    _columns: list[Columns] = field(default_factory=list, repr=False)
    _fetched_at: list[tuple[datetime, int]] = field(default_factory=list, repr=False)
    _parts: list[pa.Table] = field(default_factory=list, repr=False)

    def __len__(self) -> int:
        return self._count + self._waiting

    def read(self, records: Sequence[Record], fetched_at: datetime) -> None:
        """Reads what was fetched at an instant; at once, or when more of it has come."""
        if isinstance(records, Columns):
            if self._raw:
                self.finish()
            self._columns.append(records)
        else:
            if self._columns:
                self.finish()
            self._raw += records
        self._fetched_at.append((fetched_at, len(records)))
        self._waiting += len(records)
        if self._waiting >= READ_TOGETHER:
            self.finish()

    def finish(self) -> None:
        """Reads what waits to be read: rejects, sizes and counts are whole then."""
        if not self._waiting:
            return
        records: Sequence[Record] = self._raw or Columns.joined(self._columns)
        fetched_at = self._fetched_at
        self._raw, self._columns, self._fetched_at, self._waiting = [], [], [], 0
        arrays: dict[str, pa.Array] = {}
        unfit: dict[int, dict[str, object]] = {}
        known: dict[str, Sequence[Record]] = {}
        for column in self.table.columns:
            values = column.found(records, known)
            arrays[column.name], odd = read_values(values, column.type)
            for place, value in odd.items():
                unfit.setdefault(place, {})[column.name] = value
        rejected = self._reject(records, arrays)
        for place in rejected:
            unfit.pop(place, None)
        for name in chain.from_iterable(unfit.values()):
            self.unreadable[name] = self.unreadable.get(name, 0) + 1
        arrays["unreadable"] = _texts_at(unfit, len(records))
        marks = fingerprints(content(list(arrays.values())))
        arrays["fetched_at"] = pa.concat_arrays(
            [pa.repeat(pa.scalar(at, TYPES["timestamp"]), count) for at, count in fetched_at]
        )
        part = pa.table({**arrays, FINGERPRINT: marks})
        if rejected:
            part = part.filter(pa.array([place not in rejected for place in range(len(records))]))
        if part.num_rows:
            self._parts.append(part)
            self._count += part.num_rows
            self.size += part.nbytes

    def _reject(self, records: Sequence[Record], arrays: Mapping[str, pa.Array]) -> set[int]:
        """Sets records aside that lack a part of the key; gives their places."""
        rejected: set[int] = set()
        for name in self.table.key:
            if arrays[name].null_count:
                for place in pc.indices_nonzero(arrays[name].is_null()).to_pylist():
                    if place not in rejected:
                        rejected.add(place)
                        self.rejects.append((as_json(records[place]), f"without a readable {name}"))
        return rejected

    def take(self, project_id: str) -> pa.Table | None:
        """The rows as they go into the database, of equal keys the last; they are then no longer
        here. None where there is none.
        """
        self.finish()
        if not self._parts:
            return None
        read = _last_of_equal(pa.concat_tables(self._parts).combine_chunks(), self.table.key)
        self._parts.clear()
        self._count = self.size = 0
        told = [*(column.name for column in self.table.columns), "unreadable"]
        arrays = {name: read[name] for name in told}
        if self.table.is_swept:  # whatever is fetched is there
            arrays["is_gone"] = pa.repeat(False, read.num_rows)
            arrays["gone_seen_at"] = pa.nulls(read.num_rows, TYPES["timestamp"])
        return pa.table(
            {
                "project_id": pa.repeat(project_id, read.num_rows),
                **arrays,
                "fetched_at": read["fetched_at"],
                FINGERPRINT: read[FINGERPRINT],
            }
        )


def _texts_at(values: Mapping[int, Mapping[str, object]], count: int) -> pa.Array:
    """The values as JSON at their places, null at all others."""
    if not values:
        return pa.nulls(count, TYPES["text"])
    return pa.array(
        [as_json(values[place]) if place in values else None for place in range(count)],
        TYPES["text"],
    )


def _last_of_equal(rows: pa.Table, key: tuple[str, ...]) -> pa.Table:
    places = pa.arange(0, rows.num_rows)
    last = (
        rows.select(key)
        .append_column("place", places)
        .group_by(key, use_threads=False)
        .aggregate([("place", "max")])["place_max"]
    )
    return rows if len(last) == rows.num_rows else rows.take(last.combine_chunks().sort())


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
