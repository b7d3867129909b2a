"""Loads a file into ``raw_files``: all rows that fit, and a list of those that do not.

A load has two parts. Checking reads the whole file and sorts it into rows that fit (a Parquet file
in the working folder) and rejects; nothing else is touched, so a damaged file or a wrong mapping
costs nothing, and ``--dry-run`` ends here. Landing hands both to dlt, which merges them by key.
"""

import dataclasses
import hashlib
import os
import shutil
import tempfile
import time
from array import array
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from psycopg import sql

from loaders.columns import TYPES, content, fingerprints, read_column
from loaders.destination import FINGERPRINT, Target, clear_scratch, exclusive, land, touched
from loaders.entities import ENTITIES, Entity, entity_named
from loaders.load_log import Entry, logged
from loaders.mapping import Mapping, Reading, read_mapping, readings
from loaders.row_rules import row_problems
from loaders.tabular import Batch, RowFile, open_rows
from loaders.values import unreadable
from stageline.config import settings
from stageline.database import connect
from stageline.errors import StagelineError
from stageline.progress import step

DATASET = "raw_files"
#: What rows name in place of their file if they were made up; their project holds nothing else.
GENERATED = "stageline generate sales"
#: Rejects that are kept in memory to be shown.
FIRST_REJECTS = 10

_REJECTS = pa.schema(
    [
        ("entity", pa.string()),
        ("project_id", pa.string()),
        ("source_file", pa.string()),
        ("source_sha256", pa.string()),
        ("source_line", pa.int64()),
        ("row", pa.string()),
        ("field", pa.string()),
        ("reason", pa.string()),
    ]
)
_REJECTS_KEY = ("project_id", "entity", "source_sha256", "source_line")


@dataclass(frozen=True)
class Reject:
    """A line of a file that did not fit.

    Attributes:
        line: Its number, from 1.
        field: The first field that did not fit; None where the line is no row at all.
        reason: Why.
        row: The row as it was read.
    """

    line: int
    field: str | None
    reason: str
    row: str = dataclasses.field(repr=False)


@dataclass(frozen=True)
class FileLoad:
    """What came of a file.

    Attributes:
        entity, project_id, path: What was loaded.
        readings: Which column fed which field.
        unread: Columns of the file that fed none.
        read: Rows found; the sum of all that follows.
        new, changed, unchanged: Rows that fit, by what they did to the table. In a dry run all rows
            that fit count as ``new``, since nobody asked the table.
        duplicate: Rows that say the same as an earlier line of the file.
        rejected: Rows that did not fit.
        first_rejects: The first of them.
        sample: The first rows as they land (or would).
        seconds: How long it took.
    """

    entity: Entity
    project_id: str
    path: Path
    readings: list[Reading]
    unread: list[str]
    read: int
    new: int
    changed: int
    unchanged: int
    duplicate: int
    rejected: int
    first_rejects: list[Reject]
    sample: list[dict[str, Any]]
    seconds: float


def load_file(
    path: Path,
    entity_name: str,
    *,
    mapping_path: Path | None = None,
    project_id: str = "default",
    dry_run: bool = False,
    max_rejects: int | None = None,
) -> FileLoad:
    """Loads ``path`` as rows of ``entity_name``; with ``dry_run`` only says what would come of it.

    Args:
        path: CSV, JSON lines or Parquet; text may be gzipped.
        entity_name: One of ``ENTITIES``.
        mapping_path: Mapping file; without one, columns named like fields are read.
        project_id: Project (account, shop) that the rows belong to.
        dry_run: Check only; the database is not even asked.
        max_rejects: Load nothing if more rows than this do not fit.

    Raises:
        StagelineError: the file, the mapping or the database does not allow it; nothing was loaded.
    """
    started = time.monotonic()
    entity = entity_named(entity_name)
    if not project_id.strip() or unreadable(project_id):
        raise StagelineError("The project's id must not be empty.")
    mapping = read_mapping(mapping_path, entity)
    file = open_rows(path, mapping)
    rules = readings(entity, mapping, file.columns)
    with _working_folder() as folder:
        with step(f"Check {path.name}", total=file.size) as shown:
            checked = _check(file, entity, rules, mapping, project_id, folder, shown.advance)
            shown.note(rows=checked.read, rejected=checked.rejected, duplicate=checked.duplicate)
        if max_rejects is not None and checked.rejected > max_rejects:
            raise StagelineError(
                f"{path}: {checked.rejected} of {checked.read} rows do not fit, more than the"
                f" {max_rejects} allowed; nothing was loaded. The first: line"
                f" {checked.first_rejects[0].line}: {_said(checked.first_rejects[0])}"
            )
        if dry_run:
            new, changed, unchanged = checked.fitting, 0, 0
        else:
            new, changed, unchanged = _land(checked, entity, project_id, path.name)
        sample = checked.sample()
    fed = {rule.column for rule in rules}
    return FileLoad(
        entity=entity,
        project_id=project_id,
        path=path,
        readings=rules,
        unread=[column for column in file.columns if column not in fed],
        read=checked.read,
        new=new,
        changed=changed,
        unchanged=unchanged,
        duplicate=checked.duplicate,
        rejected=checked.rejected,
        first_rejects=checked.first_rejects,
        sample=sample,
        seconds=round(time.monotonic() - started, 3),
    )


def rejects(project_id: str | None, entity_name: str | None) -> Iterator[dict[str, Any]]:
    """The rejected lines that are still open, newest file first; both arguments narrow them.

    Raises:
        StagelineError: no such entity, or the database cannot be reached.
    """
    if entity_name is not None:
        entity_named(entity_name)
    # the loader's own role: the reader may not see raw data, rejects least of all
    with connect("loader") as session, session.cursor("rejects") as cursor:
        cursor.itersize = 2_000
        cursor.execute(
            """
            select project_id, entity, source_file, source_line, field, reason, "row", rejected_at
            from raw_files.rejects
            where (%(project)s::text is null or project_id = %(project)s)
                and (%(entity)s::text is null or entity = %(entity)s)
            order by max(rejected_at) over (partition by project_id, entity, source_sha256) desc,
                project_id, entity, source_sha256, source_line
            """,
            {"project": project_id, "entity": entity_name},
        )
        names = [column.name for column in cursor.description or []]
        for row in cursor:
            yield dict(zip(names, row, strict=True))


# --- checking ------------------------------------------------------------------------------------


@dataclass
class _Checked:
    """A checked file: where its rows are, and how many of which kind."""

    fitting_path: Path
    rejects_path: Path
    sha256: str
    schema: pa.Schema
    columns: tuple[str, ...]
    read: int = 0
    fitting: int = 0
    duplicate: int = 0
    rejected: int = 0
    first_rejects: list[Reject] = dataclasses.field(default_factory=list)
    dropped: set[int] = dataclasses.field(default_factory=set)

    def tables(self, on_rows: Callable[[int], None] = lambda _: None) -> Iterator[pa.Table]:
        """The rows that land, in portions."""
        lines = pa.array(sorted(self.dropped), pa.int64())
        with pq.ParquetFile(self.fitting_path, pre_buffer=False) as source:
            for part in source.iter_batches():
                table = pa.Table.from_batches([part])
                if self.dropped:
                    table = table.filter(pc.invert(pc.is_in(table["source_line"], value_set=lines)))
                on_rows(part.num_rows)
                if table.num_rows:
                    yield table

    def sample(self, count: int = 5) -> list[dict[str, Any]]:
        """The first rows that land."""
        first = next(self.tables(), None)
        rows: list[dict[str, Any]] = [] if first is None else first.slice(0, count).to_pylist()
        return [{name: row[name] for name in ("source_line", *self.columns)} for row in rows]

    def reject_tables(self) -> Iterator[pa.Table]:
        """The rejects, in portions."""
        with pq.ParquetFile(self.rejects_path) as source:
            for part in source.iter_batches():
                yield pa.Table.from_batches([part])


class _RejectWriter:
    """Writes rejects as they are found, and keeps the first of them."""

    def __init__(self, checked: _Checked, constants: tuple[str, str, str, str]) -> None:
        self._checked = checked
        self._constants = constants
        self._writer = pq.ParquetWriter(checked.rejects_path, _REJECTS)

    def write(self, found: list[Reject]) -> None:
        if not found:
            return
        checked = self._checked
        checked.rejected += len(found)
        checked.first_rejects = sorted([*checked.first_rejects, *found], key=lambda r: r.line)
        del checked.first_rejects[FIRST_REJECTS:]
        same = [pa.repeat(value, len(found)) for value in self._constants]
        own = [
            [reject.line for reject in found],
            [_storable(reject.row) for reject in found],
            [reject.field for reject in found],
            [_storable(reject.reason) for reject in found],
        ]
        self._writer.write_table(pa.table([*same, *own], schema=_REJECTS))

    def close(self) -> None:
        self._writer.close()


def _check(
    file: RowFile,
    entity: Entity,
    rules: list[Reading],
    mapping: Mapping,
    project_id: str,
    folder: Path,
    advance: Callable[[int], None],
) -> _Checked:
    """Reads the whole file and sorts its rows."""
    before = file.path.stat()
    with file.path.open("rb") as raw:
        sha256 = hashlib.file_digest(raw, "sha256").hexdigest()
    # every field is in the package, fed or not: a column that a corrected file drops becomes empty
    fields = {f.name: TYPES[f.type] for f in entity.fields}
    schema = pa.schema(
        [
            ("source_system", pa.string()),
            ("project_id", pa.string()),
            *fields.items(),
            ("source_file", pa.string()),
            ("source_line", pa.int64()),
            pa.field(FINGERPRINT, pa.string(), nullable=False),
        ]
    )
    checked = _Checked(
        folder / "fitting.parquet",
        folder / "rejects.parquet",
        sha256,
        schema,
        tuple(rule.name for rule in rules),
    )
    name = _storable(file.path.name)
    writer = _RejectWriter(checked, (entity.name, project_id, name, sha256))
    keys = array("q")
    wanted = list(dict.fromkeys(rule.column for rule in rules if rule.column is not None))
    position = 0

    def moved(to: int) -> None:
        nonlocal position
        advance(to - position)
        position = to

    with pq.ParquetWriter(checked.fitting_path, schema, compression="lz4") as fitting:
        for batch in file.batches(wanted, moved):
            columns, found = _read_batch(batch, rules, entity)
            count = len(batch.lines)
            checked.read += count + len(batch.broken)
            broken = [Reject(line.line, None, line.reason, line.text) for line in batch.broken]
            writer.write(sorted([*broken, *found.values()], key=lambda reject: reject.line))
            if not count:
                continue
            arrays = [
                pa.repeat(mapping.source_system, count),
                pa.repeat(project_id, count),
                *(columns.get(name, pa.nulls(count, kind)) for name, kind in fields.items()),
                pa.repeat(name, count),
                pa.array(batch.lines, pa.int64()),
                pa.nulls(count, pa.string()),
            ]
            table = pa.Table.from_arrays(arrays, names=schema.names)
            if found:
                keep = pa.array([index not in found for index in range(count)])
                table = table.filter(keep)
            if not table.num_rows:
                continue
            table = table.combine_chunks()
            identified = ["source_system", "project_id", *fields]
            prints = fingerprints(content([_flat(table[column]) for column in identified]))
            table = table.set_column(table.num_columns - 1, FINGERPRINT, prints).cast(schema)
            keys.extend(_key_hashes(table, entity))
            checked.fitting += table.num_rows
            fitting.write_table(table)
    _settle_repeats(file, entity, wanted, checked, keys, writer)
    writer.close()
    after = file.path.stat()
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise StagelineError(f"{file.path} was changed while it was read. Nothing was loaded.")
    return checked


def _read_batch(
    batch: Batch, rules: list[Reading], entity: Entity
) -> tuple[dict[str, pa.Array], dict[int, Reject]]:
    """The columns of a batch by field, and its rows that do not fit by index."""
    count = len(batch.lines)
    columns: dict[str, pa.Array] = {}
    problems: dict[int, list[tuple[str, str]]] = {}
    for rule in rules:
        cells = [rule.constant] * count if rule.column is None else batch.columns[rule.column]
        column = read_column(cells, rule)
        columns[rule.name] = column.values
        for index, reason in column.problems.items():
            problems.setdefault(index, []).append((rule.name, reason))
    for index, problem in row_problems(entity.name, columns).items():
        problems.setdefault(index, []).append(problem)
    found = {}
    for index, reasons in sorted(problems.items()):
        first, *others = reasons
        reason = "; ".join([first[1], *(f"{name}: {why}" for name, why in others)])
        found[index] = Reject(batch.lines[index], first[0], reason, batch.row_text(index))
    return columns, found


def _settle_repeats(
    file: RowFile,
    entity: Entity,
    wanted: list[str],
    checked: _Checked,
    keys: "array[int]",
    writer: _RejectWriter,
) -> None:
    """Of lines with one key keeps the first; an equal one is a duplicate, another a reject."""
    hashes_in_order = pa.array(keys, pa.int64())
    hashes_in_order = hashes_in_order.take(pc.sort_indices(hashes_in_order))
    later, earlier_ones = hashes_in_order[1:], hashes_in_order[:-1]
    repeated = later.filter(pc.equal(later, earlier_ones))
    if not len(repeated):
        return
    suspects = set(repeated.to_pylist())
    first: dict[tuple[Any, ...], tuple[int, str]] = {}
    conflicts: dict[int, int] = {}
    hashes = iter(keys)
    columns = [*entity.key, "source_line", FINGERPRINT]
    with pq.ParquetFile(checked.fitting_path, pre_buffer=False) as source:
        for part in source.iter_batches(columns=columns):
            arrays = [_comparable(part.column(name)).to_pylist() for name in columns]
            for *key, line, fingerprint in zip(*arrays, strict=True):
                if next(hashes) not in suspects:
                    continue
                earlier = first.setdefault(tuple(key), (line, fingerprint))
                if earlier[0] == line:
                    continue
                checked.dropped.add(line)
                if earlier[1] == fingerprint:
                    checked.duplicate += 1
                else:
                    conflicts[line] = earlier[0]
    checked.fitting -= len(checked.dropped)
    if conflicts:
        name = " + ".join(entity.key)
        for batch in file.batches(wanted):
            writer.write(
                [
                    Reject(
                        line,
                        entity.key[0],
                        f"line {conflicts[line]} has the same {name} and other values",
                        batch.row_text(index),
                    )
                    for index, line in enumerate(batch.lines)
                    if line in conflicts
                ]
            )


def _key_hashes(table: pa.Table, entity: Entity) -> Iterator[int]:
    """One number per row; equal keys have equal ones."""
    arrays = [_comparable(_flat(table[name])).to_pylist() for name in entity.key]
    return map(hash, zip(*arrays, strict=True))


def _comparable(values: pa.Array) -> pa.Array:
    return values.cast(pa.int64()) if pa.types.is_timestamp(values.type) else values


def _flat(column: pa.ChunkedArray) -> pa.Array:
    flat = column.combine_chunks()
    return flat if isinstance(flat, pa.Array) else pa.concat_arrays(flat.chunks)


def _storable(text: str) -> str:
    """``text`` with what a database cannot keep written out (``\\x00``, ``\\xe9``)."""
    if "\0" not in text and text.isascii():
        return text
    shown = text.replace("\0", "\\x00")
    shown = "".join(
        f"\\x{ord(character) - 0xDC00:02x}" if "\udc80" <= character <= "\udcff" else character
        for character in shown
    )
    return shown.encode("utf-8", "backslashreplace").decode()


def _said(reject: Reject) -> str:
    return f"{reject.field}: {reject.reason}" if reject.field else reject.reason


@contextmanager
def _working_folder() -> Iterator[Path]:
    """A folder of this load's own, gone afterwards; also those of loads that died."""
    parent = settings().home / "dlt" / "checked"
    parent.mkdir(parents=True, exist_ok=True)
    for left in parent.iterdir():
        process = left.name.partition("-")[0]
        if (
            process.isdigit()
            and not Path(f"/proc/{process}").exists()
            and not _is_alive(int(process))
        ):
            shutil.rmtree(left, ignore_errors=True)
    try:
        with tempfile.TemporaryDirectory(prefix=f"{os.getpid()}-", dir=parent) as folder:
            yield Path(folder)
    except OSError as error:  # a full disk, a share that is gone
        raise StagelineError(
            f"The load stopped, and nothing was loaded: {error.strerror or error}. It keeps what it"
            f" has checked in {parent} until it ends."
        ) from None


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


# --- landing -------------------------------------------------------------------------------------


def _land(
    checked: _Checked, entity: Entity, project_id: str, file_name: str
) -> tuple[int, int, int]:
    """Merges a checked file into the database; how many rows were new, changed, unchanged."""
    rows = Target(entity.name, ("project_id", *entity.key), checked.tables)
    misfits = Target("rejects", _REJECTS_KEY, checked.reject_tables, fingerprinted=False)
    name = _storable(file_name)
    entry = Entry(
        "file",
        entity.name,
        project_id,
        name,
        checked.sha256,
        read=checked.read,
        duplicate=checked.duplicate,
        rejected=checked.rejected,
    )
    targets = [*([rows] if checked.fitting else []), *([misfits] if checked.rejected else [])]
    with (
        exclusive(DATASET) as session,
        logged(session, entry),
        step(f"Load into {DATASET}.{entity.name}") as shown,
    ):
        _require_not_generated(session, project_id)
        before = _count(session, entity, project_id)
        changes = 0
        if targets:
            pa.default_memory_pool().release_unused()
            load_id = land(session, DATASET, targets)
            changes = touched(session, DATASET, rows, load_id) if checked.fitting else 0
            clear_scratch(session, DATASET, targets)
        _forget_settled(session, entity, project_id, name, checked)
        new = _count(session, entity, project_id) - before
        if changes:
            session.execute(sql.SQL("analyze {}").format(sql.Identifier(DATASET, entity.name)))
        entry.loaded, entry.unchanged = changes, checked.fitting - changes
        shown.note(new=new, changed=changes - new, unchanged=entry.unchanged)
    return new, changes - new, checked.fitting - changes


def _require_not_generated(session: psycopg.Connection[Any], project_id: str) -> None:
    """Keeps files out of a project that holds generated data; one row of each entity tells."""
    for name in ENTITIES:
        row = session.execute(
            sql.SQL("select source_file from {} where project_id = %s limit 1").format(
                sql.Identifier(DATASET, name)
            ),
            [project_id],
        ).fetchone()
        if row and row[0] == GENERATED:
            raise StagelineError(
                f"Project {project_id} holds generated data, which is not mixed with any other."
                " Give another one with --project, or run"
                f" `stageline generate sales --project {project_id} --remove` first."
            )


def _count(session: psycopg.Connection[Any], entity: Entity, project_id: str) -> int:
    row = session.execute(
        sql.SQL("select count(*) from {} where project_id = %s").format(
            sql.Identifier(DATASET, entity.name)
        ),
        [project_id],
    ).fetchone()
    return int(row[0]) if row else 0


def _forget_settled(
    session: psycopg.Connection[Any],
    entity: Entity,
    project_id: str,
    file_name: str,
    checked: _Checked,
) -> None:
    """Removes rejects that this load replaces: of the same content, or of a file of the same name.

    What stays in the table is what is still open.
    """
    session.execute(
        """
        delete from raw_files.rejects
        where project_id = %s and entity = %s and source_file = %s and source_sha256 <> %s
        """,
        [project_id, entity.name, file_name, checked.sha256],
    )
    lines = (
        [line.as_py() for table in checked.reject_tables() for line in table["source_line"]]
        if checked.rejected
        else []
    )
    session.execute(
        """
        delete from raw_files.rejects
        where project_id = %s and entity = %s and source_sha256 = %s
            and source_line <> all (%s::bigint[])
        """,
        [project_id, entity.name, checked.sha256, lines],
    )
