"""A small record of each request that was refused, and never what it said."""

import hashlib
import threading
from collections import deque
from datetime import UTC, datetime
from typing import Any, NamedTuple

import psycopg

from stageline.progress import log
from webhook_receiver.session import why

#: Most records that one process writes at a time (once a second), so that whoever knocks at the
#: door all day cannot fill the disk; all are counted.
PER_WRITE = 10


class _Refusal(NamedTuple):
    refused_at: datetime
    sender: str | None
    project_id: str | None
    client_address: str | None
    body_bytes: int | None
    body_sha256: bytes | None
    reason: str


class Refusals:
    """Refused requests of one process that are still to be written down."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: deque[_Refusal] = deque(maxlen=PER_WRITE)

    def note(
        self,
        reason: str,
        sender: str | None,
        project_id: str | None,
        client_address: str | None,
        body: bytes | None,
    ) -> None:
        """Remembers one; the oldest are forgotten where many come at once.

        Args:
            body: What was read of it, of which length and SHA-256 are kept.
        """
        refusal = _Refusal(
            datetime.now(UTC),
            sender,
            project_id,
            client_address,
            None if body is None else len(body),
            None if body is None else hashlib.sha256(body).digest(),
            reason,
        )
        with self._lock:
            self._waiting.append(refusal)

    def write(self, session: psycopg.Connection[Any]) -> None:
        """Writes down what was noted since the last time; what the database refuses is only logged.

        Raises:
            psycopg.OperationalError: the database is away.
        """
        with self._lock:
            rows = list(self._waiting)
            self._waiting.clear()
        if not rows:
            return
        try:
            with session.cursor() as cursor:
                cursor.executemany(
                    "insert into raw.refusals (refused_at, sender, project_id, client_address,"
                    " body_bytes, body_sha256, reason) values (%s, %s, %s, %s, %s, %s, %s)",
                    rows,
                )
        except psycopg.OperationalError:
            raise
        except psycopg.Error as error:
            log().error("refusals are not written down", reason=why(error))
