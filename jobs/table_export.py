"""Tables of schema ``kpis`` as files: read with a cursor of the server, written row by row."""

import csv
import io
import json
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Literal, Protocol, Self, get_args

import psycopg

from stageline.config import settings
from stageline.database import connect
from stageline.errors import StagelineError
from stageline.kpi_tables import (
    Column,
    Kind,
    Table,
    conditions_on,
    selection,
    table_named,
    values_of,
)
from stageline.whole_files import whole_file

Format = Literal["csv", "xlsx", "parquet", "json"]
FORMATS: tuple[Format, ...] = get_args(Format)

#: Cells that are held at a time, whatever the width of a table.
_CELLS = 100_000

Row = Sequence[Any]


@dataclass(frozen=True)
class Export:
    """A file that was written: where it is, and how many rows it holds."""

    path: Path
    rows: int


class _Writer(AbstractContextManager["_Writer"], Protocol):
    """Writes rows of a table in one format; what it writes is whole when the block has ended."""

    def write(self, rows: Sequence[Row]) -> None: ...


def export(name: str, form: Format, where: Sequence[str] = (), path: Path | None = None) -> Export:
    """Writes the rows of ``kpis.<name>`` in which all conditions hold, in the order of its grain.

    All rows are of one moment, and few are held at a time. A file of no rows has its columns all
    the same.

    Args:
        name: Table or view.
        form: How to write it.
        where: Conditions as they were typed (`kpi_tables.conditions_on`).
        path: The file; ``<name>.<format>`` in the folder of exports by default. One that is there
            is replaced when the new one is whole.

    Raises:
        StagelineError: there is no such table, a condition does not fit it, a value has no place
            in the format, or the file cannot be written.
    """
    path = path or settings().output / f"{name}.{form}"
    with connect("reader") as session:
        session.execute("set time zone 'UTC'")
        table = table_named(session, name)
        conditions = conditions_on(table, where)
        rows = 0
        hint = "Make its folder writable, or name another file with --output."
        try:
            with (
                session.cursor("export", binary=True) as cursor,
                whole_file(path, hint) as file,
                _WRITERS[form](file, table) as writer,
            ):
                cursor.execute(selection(table, conditions), values_of(conditions))
                while batch := cursor.fetchmany(max(100, _CELLS // len(table.columns))):
                    writer.write(batch)
                    rows += len(batch)
        except psycopg.DataError as error:  # an instant that lies outside the years 1 to 9999, say
            raise StagelineError(
                f"{name} holds a value that cannot be read: {str(error).splitlines()[0]}."
                " Leave its rows out with --where."
            ) from None
    return Export(path, rows)


def _instant(value: datetime) -> str:
    return value.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _decimal(value: Decimal) -> str:
    return f"{value:f}"


def _finite(table: Table, column: Column, value: Decimal) -> Decimal:
    if value.is_finite():
        return value
    raise StagelineError(
        f"{table.name}.{column.name} holds {value}, for which only csv has a place."
        " Export that, or leave its rows out with --where."
    )


# Text that a spreadsheet would take for a formula: what it begins with once a program that reads
# it has dropped blanks and marks that are not seen. Full-width forms count for East Asian ones.
_FORMULA = re.compile(
    "[\\s\\x00-\\x20\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufeff]*[=+\\-@\uff1d\uff0b\uff0d\uff20]"
    "|[\\t\\r\\n\\0]"
)


def looks_like_formula(text: str) -> bool:
    """Whether a spreadsheet that reads ``text`` from a file might compute it."""
    return _FORMULA.match(text) is not None


def guarded(text: str) -> str:
    """``text`` with an apostrophe before it where a spreadsheet might compute it.

    Text that would look guarded gets one, too: to take one apostrophe off each text that has one
    before what looks like a formula gives all texts as they were.
    """
    return f"'{text}" if looks_like_formula(text.lstrip("'")) else text


class _Csv:
    """RFC 4180 in UTF-8: a line of names, then a line a row."""

    def __init__(self, file: IO[bytes], table: Table) -> None:
        self._file = io.TextIOWrapper(file, encoding="utf-8", newline="")
        self._writer = csv.writer(self._file, lineterminator="\r\n")
        self._writer.writerow(table.columns)
        forms: Mapping[Kind, Callable[[Any], Any]] = {
            "integer": str,
            "numeric": _decimal,
            "boolean": lambda value: "true" if value else "false",
            "date": date.isoformat,
            "instant": _instant,
            "text": guarded,
        }
        self._forms = [forms[column.kind] for column in table.columns.values()]

    def __enter__(self) -> Self:
        return self

    def write(self, rows: Sequence[Row]) -> None:
        self._writer.writerows(
            [
                "" if value is None else form(value)
                for value, form in zip(row, self._forms, strict=True)
            ]
            for row in rows
        )

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.detach()  # which flushes, and leaves the file open


class _Json:
    """An array of objects, one a line; numbers with all their digits."""

    def __init__(self, file: IO[bytes], table: Table) -> None:
        self._file = file
        self._table = table
        self._written = False
        forms: Mapping[Kind, Callable[[Any], str]] = {
            "integer": str,
            "boolean": lambda value: "true" if value else "false",
            "date": lambda value: f'"{value.isoformat()}"',
            "instant": lambda value: f'"{_instant(value)}"',
            "text": lambda value: json.dumps(value, ensure_ascii=False),
        }
        self._forms = [
            (f"{json.dumps(name)}: ", forms.get(column.kind) or self._number(column))
            for name, column in table.columns.items()
        ]

    def _number(self, column: Column) -> Callable[[Any], str]:
        return lambda value: _decimal(_finite(self._table, column, value))

    def __enter__(self) -> Self:
        self._file.write(b"[")
        return self

    def write(self, rows: Sequence[Row]) -> None:
        lines = [
            "{"
            + ", ".join(
                name + ("null" if value is None else form(value))
                for value, (name, form) in zip(row, self._forms, strict=True)
            )
            + "}"
            for row in rows
        ]
        self._file.write(((",\n" if self._written else "\n") + ",\n".join(lines)).encode())
        self._written = True

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.write(b"\n]\n" if self._written else b"]\n")


class _Parquet:
    """Parquet, with exact decimals; unit, description and formula stand with each column."""

    #: Bytes of a row group before it is compressed.
    _GROUP = 32 * 1024 * 1024

    #: Digits of a number whose column does not state them.
    _DIGITS = (38, 9)

    def __init__(self, file: IO[bytes], table: Table) -> None:
        import pyarrow as pa
        from pyarrow import parquet

        self._table = table
        self._arrow = pa
        types = {
            "integer": pa.int64(),
            "boolean": pa.bool_(),
            "date": pa.date32(),
            "instant": pa.timestamp("us", tz="UTC"),
            "text": pa.string(),
        }
        self._schema = pa.schema(
            [
                pa.field(
                    name,
                    types.get(column.kind) or pa.decimal128(*(column.precision or self._DIGITS)),
                    metadata={
                        about: text
                        for about in ("unit", "description", "formula")
                        if (text := getattr(column, about))
                    },
                )
                for name, column in table.columns.items()
            ]
        )
        self._writer = parquet.ParquetWriter(file, self._schema, compression="zstd")
        self._held: list[Any] = []
        self._size = 0

    def __enter__(self) -> Self:
        return self

    def write(self, rows: Sequence[Row]) -> None:
        arrays = []
        for values, column, field in zip(
            zip(*rows, strict=True), self._table.columns.values(), self._schema, strict=True
        ):
            try:
                arrays.append(self._arrow.array(values, type=field.type))
            except self._arrow.ArrowInvalid as error:
                raise StagelineError(
                    f"{self._table.name}.{column.name} holds a number that has no place in"
                    f" {field.type}: {error}. Export csv, or leave its rows out with --where."
                ) from None
        batch = self._arrow.record_batch(arrays, schema=self._schema)
        self._held.append(batch)
        self._size += batch.nbytes
        if self._size >= self._GROUP:
            self._flush()

    def _flush(self) -> None:
        if self._held:
            self._writer.write_table(self._arrow.Table.from_batches(self._held))
        self._held, self._size = [], 0

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            self._flush()
        self._writer.close()


class _Xlsx:
    """A workbook: the rows, and a sheet that says what the columns hold.

    Its rows are written out one by one. Text is never a formula, and marked so (Excel's own
    apostrophe, which is not part of the value) where it would become one when it is edited.
    """

    _ROWS, _TEXT, _DIGITS = 1_048_576, 32_767, 15

    def __init__(self, file: IO[bytes], table: Table) -> None:
        import xlsxwriter

        self._table = table
        # A folder of its own: what a workbook that is given up leaves behind goes with it.
        self._folder = tempfile.TemporaryDirectory(prefix="stageline-")
        self._book = xlsxwriter.Workbook(
            file, {"constant_memory": True, "use_zip64": True, "tmpdir": self._folder.name}
        )
        self._book.set_properties(
            {
                "title": table.name,
                "comments": "Instants are in UTC. Sheet columns says what is what.",
            }
        )
        self._head = self._book.add_format(
            {"bold": True, "bottom": 1, "text_wrap": True, "valign": "top"}
        )
        self._marked = self._book.add_format({"quote_prefix": True})
        self._wrapped = self._book.add_format({"text_wrap": True, "valign": "top"})
        self._sheet = self._book.add_worksheet(table.name[:31])
        self._sheet.freeze_panes(1, 0)
        self._cells = []
        for at, column in enumerate(table.columns.values()):
            shape = self._book.add_format({"num_format": _shape(column)})
            width = {"date": 11, "instant": 19, "text": 18}.get(column.kind, 10)
            self._sheet.set_column(at, at, max(width, min(len(column.name) + 3, 30)))
            self._cells.append((column, shape, self._writer_of(column)))
        for at, name in enumerate(table.columns):
            self._sheet.write_string(0, at, name, self._head)
        self._row = 0

    def __enter__(self) -> Self:
        return self

    def write(self, rows: Sequence[Row]) -> None:
        for row in rows:
            self._row += 1
            if self._row >= self._ROWS:
                raise StagelineError(
                    f"{self._table.name} has more rows than a sheet can hold"
                    f" ({self._ROWS - 1:,}). Choose some with --where, or export csv or parquet."
                )
            for at, (value, (column, shape, write)) in enumerate(
                zip(row, self._cells, strict=True)
            ):
                if value is not None:
                    write(at, column, value, shape)

    def _writer_of(self, column: Column) -> Callable[[int, Column, Any, Any], None]:
        return {
            "integer": self._number,
            "numeric": self._number,
            "boolean": self._truth,
            "date": self._date,
            "instant": self._date,
            "text": self._string,
        }[column.kind]

    def _number(self, at: int, column: Column, value: Any, shape: Any) -> None:
        exact = Decimal(value) if isinstance(value, int) else _finite(self._table, column, value)
        # A sheet keeps 15 digits; a number with more is text, so that none is lost.
        if len(_decimal(exact).lstrip("-").replace(".", "").strip("0")) > self._DIGITS:
            self._sheet.write_string(self._row, at, _decimal(exact), shape)
        else:
            shown = exact / 100 if column.is_percent else exact
            self._sheet.write_number(self._row, at, float(shown), shape)

    def _truth(self, at: int, _: Column, value: Any, shape: Any) -> None:
        self._sheet.write_boolean(self._row, at, value, shape)

    def _date(self, at: int, _: Column, value: Any, shape: Any) -> None:
        if isinstance(value, datetime):
            value = value.astimezone(UTC).replace(tzinfo=None)
        if value.year < 1900:  # where the days of a sheet begin
            self._sheet.write_string(self._row, at, value.isoformat())
        else:
            self._sheet.write_datetime(self._row, at, value, shape)

    def _string(self, at: int, column: Column, value: Any, _: Any) -> None:
        if len(value) > self._TEXT:
            raise StagelineError(
                f"{self._table.name}.{column.name} holds a text of {len(value):,} characters, more"
                f" than a cell can hold ({self._TEXT:,}). Export csv, json or parquet."
            )
        self._sheet.write_string(
            self._row, at, value, self._marked if looks_like_formula(value) else None
        )

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._folder:
            if error is None:
                self._sheet.autofilter(0, 0, self._row, len(self._table.columns) - 1)
                self._describe()
                self._close()

    def _describe(self) -> None:
        about = self._book.add_worksheet("columns")
        about.freeze_panes(1, 0)
        for at, (name, width) in enumerate(
            {"column": 30, "unit": 22, "description": 90, "formula": 60}.items()
        ):
            about.set_column(at, at, width)
            about.write_string(0, at, name, self._head)
        for row, column in enumerate(self._table.columns.values(), 1):
            unit = "percent, shown as such" if column.is_percent else column.unit
            for at, text in enumerate((column.name, unit, column.description, column.formula)):
                about.write_string(row, at, text, self._wrapped)

    def _close(self) -> None:
        from xlsxwriter.exceptions import FileCreateError

        try:
            self._book.close()
        except FileCreateError as error:
            raise OSError(*error.args[0].args) from None


def _shape(column: Column) -> str:
    """How a sheet is to show the values of a column."""
    match column.kind:
        case "date":
            return "yyyy-mm-dd"
        case "instant":
            return "yyyy-mm-dd hh:mm:ss"
        case "numeric" if column.is_percent:
            return "0.00%"
        case "numeric" if column.unit.startswith("currency"):
            return "#,##0.00"
        case "integer" if column.unit in ("count", "seconds"):
            return "#,##0"
    return "General"


_WRITERS: Mapping[Format, Callable[[IO[bytes], Table], _Writer]] = {
    "csv": _Csv,
    "xlsx": _Xlsx,
    "parquet": _Parquet,
    "json": _Json,
}
