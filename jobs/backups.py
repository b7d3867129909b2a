"""Backups while no build runs: by hand and by the clock, noted in ``ops.backups``."""

import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg

from jobs.build import BusyError, only_build
from jobs.retention import Backups
from jobs.slots import latest
from stageline import backup
from stageline.config import settings
from stageline.database import connect
from stageline.errors import StagelineError

#: How long one may take before its process is taken to hang.
LONGEST = timedelta(hours=6)

#: Seconds that a build is waited for.
_PATIENCE = 3600.0

#: Seconds until it is tried again.
_TICK = 1.0

#: After so long, nobody is writing to a file that is not whole.
_ABANDONED = 2 * LONGEST


class StoppedError(StagelineError):
    """The worker is to stop; it is no fault of the backup."""


def make(path: Path, watch: backup.Watch) -> backup.Manifest:
    """Makes a backup; until it is there, no build begins.

    A build drops tables, for which it would wait for the backup, and all readers for it.

    Args:
        path: The file.
        watch: Told of the bytes, and of none while a build is waited for.

    Raises:
        BusyError: builds run all the time.
        StagelineError: as `stageline.backup.write`.
    """
    started = datetime.now(UTC)
    try:
        manifest = _make(path, watch)
    except StoppedError:
        raise
    except StagelineError as error:
        with suppress(StagelineError, psycopg.Error):  # it may be the database that is away
            _note(path, started, None, str(error))
        raise
    _note(path, started, manifest.dump_bytes, None)
    return manifest


def make_if_due(configured: Backups, stop: threading.Event) -> Mapping[str, object] | None:
    """As `make_by_the_clock`, where none was tried since the last slot.

    So what a stopped worker did not finish is done by the next one.

    Returns:
        Figures for the log; None where none is due.
    """
    slot = latest(configured.schedule, configured.zone, datetime.now(UTC))
    with connect("jobs") as session:
        tried = session.execute(
            "select exists (select from ops.backups where started_at >= %s"
            " and starts_with(file, %s))",
            [slot, f"{configured.folder}/"],
        ).fetchone()
    return None if tried == (True,) else make_by_the_clock(configured, stop)


def make_by_the_clock(configured: Backups, stop: threading.Event) -> Mapping[str, object]:
    """Makes a backup and removes those that are too many, for the worker.

    Args:
        configured: Where it goes, and how many stay.
        stop: Ends it once it is set.

    Returns:
        Figures for the log.

    Raises:
        StoppedError: ``stop`` is set.
        StagelineError: as `make`.
    """

    def watch(_: int) -> None:
        if stop.is_set():
            raise StoppedError("The backup was stopped.")
        if not configured.folder.is_dir():  # a disk that is not mounted would be written beside
            raise StagelineError(
                f"There is no folder {configured.folder}, where backups go by"
                f" {settings().retention}. Make it, or mount its disk."
            )

    path = configured.folder / backup.file_name(datetime.now(UTC))
    manifest = make(path, watch)
    removed = _remove_old(configured)
    return {"file": path.name, "bytes": manifest.dump_bytes, "removed": removed}


def _make(path: Path, watch: backup.Watch) -> backup.Manifest:
    deadline = time.monotonic() + _PATIENCE
    while True:
        watch(0)
        try:
            with only_build():
                return backup.write(path, watch)
        except BusyError:
            if time.monotonic() > deadline:
                raise
        time.sleep(_TICK)


def _note(path: Path, started: datetime, size: int | None, error: str | None) -> None:
    with connect("jobs") as session, suppress(psycopg.errors.UndefinedTable):
        # Before an upgrade there may be no such table: then is the time for a backup.
        session.execute(
            "insert into ops.backups (file, started_at, dump_bytes, error) values (%s, %s, %s, %s)",
            [str(path), started, size, error],
        )


def _remove_old(configured: Backups) -> int:
    """Removes what is too many, and what backups that were killed left; gives its number."""
    old = sorted(configured.folder.glob(backup.NAMES))[: -configured.keep]
    ended_by = time.time() - _ABANDONED.total_seconds()
    # The name that a file has until it is whole (`stageline.whole_files`).
    left = configured.folder.glob(f".{backup.NAMES}.*")
    old += [part for part in left if part.stat().st_mtime < ended_by]
    for path in old:
        path.unlink(missing_ok=True)
    return len(old)
