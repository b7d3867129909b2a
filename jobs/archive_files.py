"""Files of archived bodies: Parquet, one row per delivery, readable by anything that reads that."""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import astuple, dataclass, fields
from datetime import UTC, date, datetime
from pathlib import Path
from urllib.parse import quote
from uuid import UUID

from stageline.errors import StagelineError
from stageline.whole_files import sync_folder, whole_file

#: Bytes of bodies that are held in memory at a time, and rows.
_GROUP_BYTES, _GROUP_ROWS = 8 * 1024 * 1024, 2000

#: Signs of a project's name in that of its folder, at most; file systems take 255 bytes.
_LONGEST = 120


@dataclass(frozen=True)
class Body:
    """What a delivery said.

    Attributes:
        delivery_id, source_system, project_id, sender, received_at: As in ``raw.deliveries``.
        headers: JSON.
        body: As it came.
    """

    delivery_id: UUID
    source_system: str
    project_id: str
    sender: str
    received_at: datetime
    headers: str
    body: bytes

    def body_sha256(self) -> bytes:
        """As in ``raw.deliveries``."""
        return hashlib.sha256(self.body).digest()

    def digest(self) -> bytes:
        """SHA-256 over what cannot be had again: when it came, and what it said."""
        received = self.received_at.astimezone(UTC).isoformat()
        told = "\0".join((received, self.body_sha256().hex(), self.headers))
        return hashlib.sha256(told.encode()).digest()


def file_name(source_system: str, project_id: str, month: date, number: int) -> str:
    """Where the ``number``-th file of a project and month is, below the folder of the archive.

    Projects are named by CRMs and users: no name leads out of the folder.
    """
    part = "" if number == 1 else f".{number}"
    return f"{_plain(source_system)}/{_plain(project_id)}/{month:%Y-%m}{part}.parquet"


def _plain(name: str) -> str:
    plain = quote(name, safe="")
    if plain.startswith("."):
        plain = "%2E" + plain[1:]
    if len(plain) > _LONGEST:
        plain = f"{plain[:_LONGEST]}-{hashlib.sha256(name.encode()).hexdigest()[:16]}"
    return plain


def write(folder: Path, name: str, bodies: Iterable[Body]) -> None:
    """Writes a file whole; few bodies are held in memory at a time.

    Args:
        folder: That of the archive.
        name: Of the file, below it.
        bodies: What it is to hold.

    Raises:
        StagelineError: it cannot be written.
    """
    import pyarrow as pa
    from pyarrow import parquet

    types = {"received_at": pa.timestamp("us", tz="UTC"), "body": pa.binary()}
    schema = pa.schema(
        [(each.name, types.get(each.name, pa.string()), False) for each in fields(Body)]
    )
    hint = "Mend that and archive again: what was not archived is still in the database."
    path = folder / name
    _make_folders(folder, path.parent, hint)
    with (
        whole_file(path, hint, mode=0o600) as file,
        parquet.ParquetWriter(file, schema, compression="zstd") as writer,
    ):
        for group in _groups(bodies):
            rows = [(str(row[0]), *row[1:]) for row in map(astuple, group)]
            columns = [
                pa.array(values, field.type)
                for values, field in zip(zip(*rows, strict=True), schema, strict=True)
            ]
            writer.write_batch(pa.record_batch(columns, schema=schema))


def read(path: Path) -> Iterator[Body]:
    """The bodies of a file, few in memory at a time.

    Raises:
        StagelineError: it is missing or cannot be read.
    """
    import pyarrow as pa
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(path) as file:
            # Row groups hold a bounded number of bytes; of batches, the number of rows is.
            for group in range(file.num_row_groups):
                for row in file.read_row_group(group).to_pylist():
                    yield Body(**(row | {"delivery_id": UUID(row["delivery_id"])}))
    except (OSError, pa.ArrowException, KeyError, TypeError, ValueError) as error:
        raise _unreadable(path, error) from None


def sha256(path: Path) -> bytes:
    """Of a file's bytes.

    Raises:
        StagelineError: it is missing or cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").digest()
    except OSError as error:
        raise _unreadable(path, error) from None


def remove(folder: Path, name: str) -> None:
    """Removes a file that was not archived whole, with what its writing left behind.

    Raises:
        StagelineError: it cannot be removed.
    """
    path = folder / name
    try:
        for each in (path, *path.parent.glob(f".{path.name}.*")):
            each.unlink(missing_ok=True)
    except OSError as error:
        raise StagelineError(
            f"{path} is left from an archiving that was cut short, and cannot be removed:"
            f" {error.strerror}. Remove it."
        ) from None


def _groups(bodies: Iterable[Body]) -> Iterator[list[Body]]:
    group: list[Body] = []
    size = 0
    for body in bodies:
        group.append(body)
        size += len(body.body) + len(body.headers)
        if size >= _GROUP_BYTES or len(group) == _GROUP_ROWS:
            yield group
            group, size = [], 0
    if group:
        yield group


def _make_folders(top: Path, folder: Path, hint: str) -> None:
    """Makes ``folder``, below ``top``, for its owner alone, to outlast a power cut."""
    try:
        for each in (*reversed(folder.relative_to(top).parents[:-1]), folder.relative_to(top)):
            if not (top / each).is_dir():
                (top / each).mkdir(mode=0o700)
                sync_folder((top / each).parent)
    except OSError as error:
        raise StagelineError(f"{folder} cannot be made: {error.strerror}. {hint}") from None


def _unreadable(path: Path, error: Exception) -> StagelineError:
    why = "it is missing" if isinstance(error, FileNotFoundError) else None
    why = why or getattr(error, "strerror", None) or "it is no whole file of an archive"
    return StagelineError(f"The archive {path} cannot be read: {why}. Put it back from a copy.")
