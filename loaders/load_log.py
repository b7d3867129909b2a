"""The book of loads, ``ops.loads``: what was loaded when, and what came of it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg

from stageline.errors import StagelineError


@dataclass
class Entry:
    """What a load says about itself; whoever loads fills in the counts.

    Attributes:
        source: ``file``, ``demo``, or the name of a CRM.
        entity: Table that is loaded; None = all of a CRM's.
        project_id, file_name, file_sha256: Where the rows come from, as far as it applies.
        stopped: Why the rest is to follow with the next load; None where all is loaded.
        read, loaded, unchanged, duplicate, rejected: Counts of rows; ``loaded`` = new or changed.
    """

    source: str
    entity: str | None
    project_id: str
    file_name: str | None = None
    file_sha256: str | None = None
    stopped: str | None = None
    read: int = 0
    loaded: int = 0
    unchanged: int = 0
    duplicate: int = 0
    rejected: int = 0


@contextmanager
def logged(
    session: psycopg.Connection[Any], entry: Entry, *, of_project: bool = False
) -> Iterator[Entry]:
    """Keeps an entry for the block: running, then success or failed, with its counts.

    Args:
        session: From ``loaders.destination.exclusive``. Loads of the same source that still say
            they run did not survive (they held the lock that this session holds): they are closed.
        entry: What is known beforehand; the counts may be filled in until the block ends.
        of_project: The lock is one of the project's, so that this is said of its loads alone.
    """
    session.execute(
        "update ops.loads set status = 'failed', finished_at = now(), error = 'interrupted'"
        " where source = %s and status = 'running' and (not %s or project_id = %s)",
        [entry.source, of_project, entry.project_id],
    )
    row = session.execute(
        """
        insert into ops.loads (source, entity, project_id, file_name, file_sha256)
        values (%s, %s, %s, %s, %s)
        returning load_id
        """,
        [entry.source, entry.entity, entry.project_id, entry.file_name, entry.file_sha256],
    ).fetchone()
    load_id = row[0] if row else None
    try:
        yield entry
    except BaseException as error:
        # a stack trace, or the database's own words, could hold rows
        reason = str(error) if isinstance(error, StagelineError) else type(error).__name__
        _close(session, load_id, entry, "failed", reason)
        raise
    _close(session, load_id, entry, "success", entry.stopped)


def _close(
    session: psycopg.Connection[Any], load_id: Any, entry: Entry, status: str, error: str | None
) -> None:
    try:
        session.execute(
            """
            update ops.loads
            set
                status = %s,
                error = %s,
                finished_at = clock_timestamp(),
                rows_read = %s,
                rows_loaded = %s,
                rows_unchanged = %s,
                rows_duplicate = %s,
                rows_rejected = %s
            where load_id = %s
            """,
            [
                status,
                error,
                entry.read,
                entry.loaded,
                entry.unchanged,
                entry.duplicate,
                entry.rejected,
                load_id,
            ],
        )
    except psycopg.OperationalError:
        if status == "success":
            raise
        # the database is away: the next load closes this entry as interrupted
