"""Backups while no build runs: by hand and by the clock."""

import time
from pathlib import Path

from jobs.build import BusyError, only_build
from stageline import backup

#: Seconds that a build is waited for.
_PATIENCE = 3600.0

#: Seconds until it is tried again.
_TICK = 1.0


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
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            with only_build():
                return backup.write(path, watch)
        except BusyError:
            if time.monotonic() > deadline:
                raise
        watch(0)
        time.sleep(_TICK)
