"""Files that are there whole or not at all."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from stageline.errors import StagelineError


@contextlib.contextmanager
def whole_file(path: Path, hint: str, mode: int = 0o644) -> Iterator[IO[bytes]]:
    """A file to write into, which takes the place of ``path`` when the block ends well.

    A reader, or a crash, sees the old file or the new one. A block that fails leaves the old one.

    Args:
        path: Where it is to be; folders that are missing are made.
        hint: What to do where it cannot be written, for the error.
        mode: Who may read and write it.

    Raises:
        StagelineError: the folder or the file cannot be written.
    """
    part: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(
            "wb", dir=path.parent, prefix=f".{path.name}.", delete=False
        ) as file:
            part = Path(file.name)
            yield file.file
            file.flush()
            os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
        part.replace(path)
        part = None
        sync_folder(path.parent)
    except OSError as error:
        raise StagelineError(
            f"{path} cannot be written: {error.strerror or error}. {hint}"
        ) from None
    finally:
        if part is not None:
            with contextlib.suppress(OSError):
                part.unlink()


def sync_folder(folder: Path) -> None:
    """Makes what was named, or renamed, in ``folder`` outlast a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
