"""Reads files of rows (CSV, JSON lines, Parquet) in batches, with the line of each row.

Nothing in a file ends the reading but damage to the file as a whole: a line that is no row (a quote
that is never closed, too many columns, no JSON) is handed on as broken, with the reason.
"""

import csv
import gzip
import io
import json
import re
import zlib
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import IO, Any, cast

import pyarrow as pa
import pyarrow.parquet as pq

from loaders.mapping import Kind, Mapping
from stageline.errors import StagelineError

#: Rows per batch: large enough for Arrow's speed, small enough that memory stays flat.
BATCH_ROWS = 20_000
#: Characters of one line beyond which it is taken for damage.
LONGEST_LINE = 4_000_000
#: Lines that one quoted value may span; beyond it, its quote is taken for one never closed.
LONGEST_QUOTE = 1_000
#: Lines of JSON that are looked at for the names of columns.
SAMPLED_LINES = 100_000
_SUFFIXES: dict[str, Kind] = {
    ".csv": "csv",
    ".tsv": "csv",
    ".txt": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".parquet": "parquet",
    ".pq": "parquet",
}


@dataclass(frozen=True)
class Broken:
    """A line that is no row.

    Attributes:
        line: Its number, from 1.
        text: The line as it stands there.
        reason: Why it is no row.
    """

    line: int
    text: str
    reason: str


@dataclass(frozen=True)
class Batch:
    """Some rows of a file.

    Attributes:
        lines: The line on which each row starts (in a Parquet file, the number of the row), from 1.
        columns: The columns asked for: text as in the file, or Arrow's type.
        row_text: Gives a row as it was read, by its index in the batch.
        broken: Lines between these rows that are no rows.
    """

    lines: list[int]
    columns: dict[str, list[str | None] | pa.Array]
    row_text: Callable[[int], str]
    broken: list[Broken] = field(default_factory=list)


@dataclass(frozen=True)
class RowFile:
    """An opened description of a file: its kind, its columns, how to read it.

    Attributes:
        path: The file.
        kind: csv, jsonl or parquet.
        columns: Names of its columns; of JSON lines, those of the first ``SAMPLED_LINES``.
        size: Bytes; what ``position`` of the progress counts up to.
        rows: Number of rows, where the file says it itself.
        delimiter, encoding, note: What was found out about a text file.
    """

    path: Path
    kind: Kind
    columns: list[str]
    size: int
    rows: int | None = None
    delimiter: str = ","
    encoding: str = "utf-8-sig"
    mapping: Mapping = field(default_factory=Mapping, repr=False)

    def batches(
        self, wanted: list[str], position: Callable[[int], None] = lambda _: None
    ) -> Iterator[Batch]:
        """All rows, with the columns ``wanted``; tells ``position`` how many bytes (rows) are read.

        Raises:
            StagelineError: the file as a whole is damaged from some place on.
        """
        match self.kind:
            case "csv":
                yield from _csv_batches(self, wanted, position)
            case "jsonl":
                yield from _json_batches(self, wanted, position)
            case "parquet":
                yield from _parquet_batches(self, wanted, position)


def open_rows(path: Path, mapping: Mapping) -> RowFile:
    """Looks at the beginning of ``path``: what it is, and which columns it has.

    Raises:
        StagelineError: it is missing, a folder, empty, or not of a kind that can be read.
    """
    if path.is_dir():
        raise StagelineError(f"{path} is a folder; give one file.")
    try:
        with path.open("rb") as raw:
            head = raw.read(4)
        size = path.stat().st_size
    except OSError as error:
        raise StagelineError(f"{path} cannot be read: {error.strerror}.") from None
    if not size:
        raise StagelineError(f"{path} is empty.")
    kind = mapping.kind or _kind(path, head)
    if kind == "parquet":
        return _open_parquet(path, size, mapping)
    encoding = mapping.encoding or "utf-8-sig"
    encoding = "utf-8-sig" if encoding == "utf-8" else encoding
    if mapping.encoding is None and head[:2] in {b"\xff\xfe", b"\xfe\xff"}:
        encoding = "utf-16"
    sample = _sample(path, encoding)
    # a stray NUL is one row's fault; a header with one, or many of them, is no text
    if "\0" in sample.partition("\n")[0] or sample.count("\0") * 100 > len(sample):
        raise StagelineError(
            f"{path} is not a text file (it holds NUL bytes)."
            " CSV, JSON lines and Parquet can be read."
        )
    if not sample.strip():
        raise StagelineError(f"{path} holds nothing but blanks.")
    if kind == "jsonl":
        return _open_json(path, size, encoding, mapping, sample)
    return _open_csv(path, size, encoding, mapping, sample)


def _kind(path: Path, head: bytes) -> Kind:
    suffixes = [s.lower() for s in path.suffixes]
    if head == b"PAR1":
        return "parquet"
    if head[:4] == b"PK\x03\x04":
        raise StagelineError(
            f"{path} is a spreadsheet or zip archive. Save the sheet as CSV (UTF-8) and load that."
        )
    if suffixes and suffixes[-1] == ".gz":
        suffixes = suffixes[:-1]
    kind = _SUFFIXES.get(suffixes[-1]) if suffixes else None
    if kind == "parquet":
        raise StagelineError(f"{path} is not a Parquet file: it does not begin with PAR1.")
    if kind is None:
        kind = "jsonl" if _sample(path, "utf-8-sig", 200).lstrip()[:1] == "{" else "csv"
    return kind


@contextmanager
def _text(path: Path, encoding: str) -> Iterator[tuple[IO[str], IO[bytes]]]:
    """The file as text (bytes that the encoding lacks become surrogates), and its bytes on disk."""
    errors = (
        "strict"
        if encoding.startswith(("utf-16", "utf-32", "utf_16", "utf_32"))
        else "surrogateescape"
    )
    with path.open("rb") as raw:
        zipped = raw.read(2) == b"\x1f\x8b"
        raw.seek(0)
        data = cast(IO[bytes], gzip.GzipFile(fileobj=raw)) if zipped else raw
        try:
            yield io.TextIOWrapper(data, encoding=encoding, errors=errors, newline=""), raw
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise StagelineError(
                f"{path} is cut off or damaged: {error}. Nothing was loaded."
            ) from None
        except UnicodeError as error:
            reason = getattr(error, "reason", str(error))
            raise StagelineError(
                f"{path} is not {encoding}: {reason}. Give its `encoding` in the mapping."
            ) from None


def _sample(path: Path, encoding: str, size: int = 64_000) -> str:
    with _text(path, encoding) as (text, _):
        return text.read(size)


# --- CSV -----------------------------------------------------------------------------------------


class _Lines:
    """The physical lines of a text; knows those of the record at hand and can put lines back."""

    def __init__(self, text: IO[str]) -> None:
        self._read = partial(text.readline, LONGEST_LINE)
        self._back: deque[str] = deque()
        self.number = 0
        self.taken: list[str] = []

    def __iter__(self) -> "_Lines":
        return self

    def __next__(self) -> str:
        if len(self.taken) >= LONGEST_QUOTE:
            raise _NeverClosedError
        line = self._back.popleft() if self._back else self._read()
        if not line:
            raise StopIteration
        self.number += 1
        self.taken.append(line)
        return line

    def put_back(self) -> None:
        """Keeps only the first line of the record at hand; the others are read again."""
        self._back.extendleft(reversed(self.taken[1:]))
        self.number -= len(self.taken) - 1
        del self.taken[1:]


class _NeverClosedError(Exception):
    """A quoted value spans more lines than a value does."""


def _open_csv(path: Path, size: int, encoding: str, mapping: Mapping, sample: str) -> RowFile:
    first, _, rest = sample.partition("\n")
    told = re.fullmatch(r"sep=(.)\s*", first)
    delimiter = mapping.delimiter or (told[1] if told else _sniffed(path, sample, mapping))
    columns = mapping.columns
    if not columns:
        body = rest if told else sample
        header = next(
            (
                row
                for row in _loose(body.splitlines(keepends=True), delimiter, mapping.quote)
                if row
            ),
            [],
        )
        columns = [name.strip() for name in header]
    if delimiter == mapping.quote:
        raise StagelineError(f"The mapping gives {delimiter!r} both as delimiter and as quote.")
    _check_names(path, columns)
    return RowFile(path, "csv", columns, size, None, delimiter, encoding, mapping)


def _check_names(path: Path, columns: list[str]) -> None:
    if not any(columns):
        raise StagelineError(f"{path} has no header: its first line names no column.")
    for name in columns:
        if any("\ud800" <= character <= "\udfff" for character in name):
            raise StagelineError(
                f"{path}: the header is not UTF-8. Give the file's `encoding` in the mapping"
                " (cp1252, cp1251, latin-1 ...)."
            )
    twice = sorted({name for name in columns if name and columns.count(name) > 1})
    if twice:
        raise StagelineError(
            f"{path} has two columns named {twice[0]!r}. Rename one, or name all columns with"
            " `columns: [...]` in the mapping."
        )


def _loose(lines: list[str], delimiter: str, quote: str) -> Iterator[list[str]]:
    reader = csv.reader(lines, delimiter=delimiter, quotechar=quote)
    while True:
        try:
            yield next(reader)
        except StopIteration:
            return
        except csv.Error:
            continue


def _sniffed(path: Path, sample: str, mapping: Mapping) -> str:
    """The delimiter by which the first lines fall into the same number of columns most often."""
    if path.name.lower().removesuffix(".gz").endswith(".tsv"):
        return "\t"
    lines = sample.splitlines(keepends=True)[:-1][:50] or [sample]
    scores = {}
    for candidate in (",", ";", "\t", "|"):
        widths = [len(row) for row in _loose(lines, candidate, mapping.quote) if row]
        width = widths[0] if widths else 1
        scores[candidate] = (0, 0) if width < 2 else (sum(w == width for w in widths), width)
    return max(scores, key=lambda candidate: scores[candidate])


def _csv_batches(
    file: RowFile, wanted: list[str], position: Callable[[int], None]
) -> Iterator[Batch]:
    csv.field_size_limit(LONGEST_LINE)
    width = len(file.columns)
    places = {name: file.columns.index(name) for name in wanted}
    with _text(file.path, file.encoding) as (text, raw):
        lines = _Lines(text)
        reader = csv.reader(
            lines, delimiter=file.delimiter, quotechar=file.mapping.quote, strict=True
        )
        header_wanted = not file.mapping.columns
        rows: list[list[str]] = []
        starts: list[int] = []
        broken: list[Broken] = []

        def batch() -> Batch:
            held = rows
            return Batch(
                starts,
                {name: [row[place] for row in held] for name, place in places.items()},
                lambda index: _as_json(dict(zip(file.columns, held[index], strict=False))),
                broken,
            )

        while True:
            lines.taken.clear()
            start = lines.number + 1
            reason = None
            try:
                row = next(reader)
            except StopIteration:
                break
            except _NeverClosedError:
                reason = f"a quote is opened and not closed within {LONGEST_QUOTE} lines"
            except csv.Error as error:
                reason = _quote_reason(str(error), lines.taken)
            else:
                if not row:
                    continue
                if header_wanted:
                    if start == 1 and re.fullmatch(r"sep=.\s*", lines.taken[0]):
                        continue
                    header_wanted = False
                    continue
                if len(row) > width and not any(cell.strip() for cell in row[width:]):
                    del row[width:]
                if len(row) == width:
                    rows.append(row)
                    starts.append(start)
                elif len(row) == 1 and not row[0].strip():
                    continue
                else:
                    reason = f"has {_columns(len(row))}, the header {width}"
            if reason is not None:
                if len(lines.taken) > 1:
                    reason = "a quote is opened on this line and not closed where its value ends"
                    lines.put_back()
                broken.append(Broken(start, "".join(lines.taken).rstrip("\r\n"), reason))
            if len(rows) + len(broken) >= BATCH_ROWS:
                yield batch()
                position(raw.tell())
                rows, starts, broken = [], [], []
        yield batch()
        position(raw.tell())


def _columns(count: int) -> str:
    return "1 column" if count == 1 else f"{count} columns"


def _quote_reason(message: str, taken: list[str]) -> str:
    if "field larger" in message or any(len(line) >= LONGEST_LINE for line in taken):
        return f"is longer than {LONGEST_LINE} characters"
    if "expected after" in message:
        return "a closing quote is followed by text (a quote inside a value is written twice)"
    if "unexpected end" in message:
        return "a quote is opened and never closed"
    return message


def _as_json(row: dict[str, Any]) -> str:
    return json.dumps(row, ensure_ascii=False, default=str)


# --- JSON lines ----------------------------------------------------------------------------------


class _ConstantError(ValueError):
    """NaN or Infinity, which JSON does not have."""


def _no_constant(name: str) -> str:
    raise _ConstantError(f"{name} is not JSON")


#: Numbers stay the text that they are written as, so that not a digit is lost.
_decode = json.JSONDecoder(parse_float=str, parse_int=str, parse_constant=_no_constant).decode


def _open_json(path: Path, size: int, encoding: str, mapping: Mapping, sample: str) -> RowFile:
    if sample.lstrip()[:1] == "[":
        raise StagelineError(
            f"{path} holds one JSON array; JSON lines hold one object a line. Convert it with"
            " `jq -c '.[]' FILE.json > FILE.jsonl`."
        )
    names: dict[str, None] = {}
    with _text(path, encoding) as (text, _):
        for _number, line in zip(
            range(SAMPLED_LINES), iter(partial(text.readline, LONGEST_LINE), ""), strict=False
        ):
            try:
                found = _decode(line.strip())
            except (ValueError, RecursionError):
                continue
            if isinstance(found, dict):
                names.update(dict.fromkeys(_names(found)))
    if not names:
        raise StagelineError(f"{path} holds no JSON object in its first {SAMPLED_LINES} lines.")
    return RowFile(path, "jsonl", list(names), size, None, "", encoding, mapping)


def _names(found: dict[str, Any], prefix: str = "", depth: int = 0) -> Iterator[str]:
    for key, value in found.items():
        if isinstance(value, dict) and depth < 3:
            yield from _names(value, f"{prefix}{key}.", depth + 1)
        else:
            yield prefix + key


def _json_batches(
    file: RowFile, wanted: list[str], position: Callable[[int], None]
) -> Iterator[Batch]:
    with _text(file.path, file.encoding) as (text, raw):
        texts: list[str] = []
        rows: list[dict[str, Any]] = []
        starts: list[int] = []
        broken: list[Broken] = []

        def batch() -> Batch:
            held = texts
            return Batch(
                starts,
                {name: [_cell(row, name) for row in rows] for name in wanted},
                held.__getitem__,
                broken,
            )

        for number, line in enumerate(iter(partial(text.readline, LONGEST_LINE), ""), 1):
            stripped = line.strip()
            if not stripped:
                continue
            try:
                found = _decode(stripped)
                if not isinstance(found, dict):
                    raise TypeError("is not an object in braces")
            except (ValueError, TypeError, RecursionError) as error:
                broken.append(Broken(number, line.rstrip("\r\n"), _json_reason(error)))
            else:
                texts.append(stripped)
                rows.append(found)
                starts.append(number)
            if len(rows) + len(broken) >= BATCH_ROWS:
                yield batch()
                position(raw.tell())
                texts, rows, starts, broken = [], [], [], []
        yield batch()
        position(raw.tell())


def _json_reason(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"is not JSON: {error.msg.lower()} at character {error.colno}"
    if isinstance(error, RecursionError):
        return "is not readable JSON: nested too deeply"
    return str(error)


def _cell(row: dict[str, Any], name: str) -> str | None:
    value: Any = row.get(name)
    if value is None and "." in name and name not in row:
        value = row
        for part in name.split("."):
            value = value.get(part) if isinstance(value, dict) else None
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    return _as_json(value)


# --- Parquet -------------------------------------------------------------------------------------


def _open_parquet(path: Path, size: int, mapping: Mapping) -> RowFile:
    try:
        with pq.ParquetFile(path) as file:
            names = [field.name for field in file.schema_arrow]
            rows = file.metadata.num_rows
    except (pa.ArrowException, OSError) as error:
        raise StagelineError(f"{path} is not a readable Parquet file: {_first(error)}.") from None
    _check_names(path, names)
    return RowFile(path, "parquet", names, size, rows, mapping=mapping)


def _parquet_batches(
    file: RowFile, wanted: list[str], position: Callable[[int], None]
) -> Iterator[Batch]:
    done = 0
    try:
        with pq.ParquetFile(file.path, pre_buffer=False) as source:
            for part in source.iter_batches(batch_size=BATCH_ROWS, columns=wanted):
                yield _parquet_batch(part, done)
                done += part.num_rows
                position(file.size * done // max(file.rows or 1, 1))
    except (pa.ArrowException, OSError) as error:
        raise StagelineError(
            f"{file.path} is damaged after row {done}: {_first(error)}. Nothing was loaded."
        ) from None


def _parquet_batch(part: pa.RecordBatch, done: int) -> Batch:
    columns: dict[str, list[str | None] | pa.Array] = {}
    for name, array in zip(part.schema.names, part.columns, strict=True):
        kind = array.type
        if pa.types.is_dictionary(kind):
            array, kind = array.dictionary_decode(), kind.value_type
        castable = (
            (pa.types.is_primitive(kind) and not pa.types.is_duration(kind))
            or pa.types.is_decimal(kind)
            or pa.types.is_string(kind)
            or pa.types.is_large_string(kind)
            or pa.types.is_null(kind)
        )
        columns[name] = array if castable else [_shown(value) for value in array.to_pylist()]
    return Batch(
        list(range(done + 1, done + part.num_rows + 1)),
        columns,
        lambda index: _as_json(part.slice(index, 1).to_pylist()[0]),
    )


def _shown(value: Any) -> str | None:
    if value is None:
        return None
    if isinstance(value, bytes):
        return value.decode("utf-8", errors="surrogateescape")
    return value if isinstance(value, str) else _as_json(value)


def _first(error: Exception) -> str:
    return (
        str(error).strip().splitlines()[0].rstrip(".")
        if str(error).strip()
        else type(error).__name__
    )
