"""Where deliveries wait on this machine's disk while PostgreSQL is away."""

import json
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import datetime
from pathlib import Path

from stageline.errors import StagelineError
from stageline.progress import log
from webhook_receiver.delivery import Delivery

_SCHEMA = """
create table if not exists deliveries (
    position integer primary key autoincrement,
    sender text not null,
    project_id text not null,
    received_at text not null,
    check_ids text not null,
    headers text not null,
    body blob not null,
    time_zone text not null
);
create table if not exists accounts (
    is_only_row integer primary key check (is_only_row = 1),
    content text not null
);
"""


_DAMAGE = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


class SpoolError(Exception):
    """The spool has reached its limit, or its disk is full, or cannot be written."""


class Spool:
    """A SQLite file that several processes of one machine share.

    A delivery is on the disk (fsync) when `put` returns. The same file keeps the last known
    accounts, secrets encrypted, so that a receiver that starts while PostgreSQL is away knows who
    may send.

    Args:
        path: The file; made with rights for its owner alone.
        limit: Its largest size in bytes.
    """

    def __init__(self, path: Path, limit: int) -> None:
        self._path = path
        self._limit = limit
        self._lock = threading.Lock()
        self._session: sqlite3.Connection | None = None
        self._is_damaged = False

    @property
    def path(self) -> Path:
        """The file."""
        return self._path

    def put(self, deliveries: Sequence[Delivery]) -> None:
        """Keeps ``deliveries``, all or none.

        Raises:
            SpoolError: they could not be written.
        """
        rows = [
            (
                each.sender,
                each.project_id,
                each.received_at.isoformat(),
                json.dumps(each.check_ids),
                json.dumps(each.headers),
                each.body,
                each.time_zone,
            )
            for each in deliveries
        ]
        with self._use() as session:
            session.executemany(
                "insert into deliveries (sender, project_id, received_at, check_ids, headers, body,"
                " time_zone) values (?, ?, ?, ?, ?, ?, ?)",
                rows,
            )

    def first(self, count: int, size: int) -> list[tuple[int, Delivery]]:
        """The oldest deliveries with their positions: one, or some of at most ``size`` bytes.

        Raises:
            SpoolError: the file cannot be read.
        """
        with self._use() as session:
            rows = session.execute(
                "select position, sender, project_id, received_at, check_ids, headers, body,"
                " time_zone from ("
                " select *, sum(length(body)) over (order by position) as so_far from deliveries"
                " order by position limit ?"
                ") where so_far - length(body) = 0 or so_far <= ?",
                (count, size),
            ).fetchall()
        return [(position, _delivery(*columns)) for position, *columns in rows]

    def remove(self, positions: Sequence[int]) -> None:
        """Takes out what has reached the database.

        Raises:
            SpoolError: the file cannot be written; what stays is sent again, which changes nothing.
        """
        with self._use() as session:
            session.executemany(
                "delete from deliveries where position = ?", [(each,) for each in positions]
            )

    def waiting(self) -> tuple[int, datetime | None]:
        """How many deliveries wait, and when the oldest of them came.

        Raises:
            SpoolError: the file cannot be read.
        """
        with self._use() as session:
            # They leave in their order, so no position in between is missing.
            count, oldest = session.execute(
                "select coalesce(max(position) - min(position) + 1, 0),"
                " (select received_at from deliveries order by position limit 1)"
                " from deliveries"
            ).fetchone()
        return int(count), datetime.fromisoformat(oldest) if oldest else None

    def check_writable(self) -> None:
        """Tries whether there is room for another delivery.

        Raises:
            SpoolError: there is none.
        """
        with self._use() as session:
            session.execute(
                "insert into deliveries (sender, project_id, received_at, check_ids, headers, body,"
                " time_zone) values ('', '', '', '', '', zeroblob(65536), '')"
            )
            session.rollback()

    def keep_accounts(self, content: str) -> None:
        """Remembers who may send, for a start without PostgreSQL.

        Raises:
            SpoolError: the file cannot be written.
        """
        with self._use() as session:
            session.execute(
                "insert into accounts values (1, ?)"
                " on conflict do update set content = excluded.content"
                " where content <> excluded.content",
                (content,),
            )

    def accounts(self) -> str | None:
        """Who may send, as last remembered.

        Raises:
            SpoolError: the file cannot be read.
        """
        with self._use() as session:
            row = session.execute("select content from accounts").fetchone()
        return str(row[0]) if row else None

    def close(self) -> None:
        """Closes the file."""
        with self._lock:
            if self._session is not None:
                self._session.close()
                self._session = None

    @contextmanager
    def _use(self) -> Iterator[sqlite3.Connection]:
        """The open file, in a transaction that ends with the block."""
        if self._is_damaged:
            raise SpoolError("damaged")
        try:
            with self._lock, self._open() as session:
                yield session
        except (sqlite3.Error, OSError) as error:
            # What cannot be read any more is not to be given more: the next start puts it aside.
            self._is_damaged = getattr(error, "sqlite_errorcode", 0) in _DAMAGE
            log().error("spool failed", error=str(error), path=str(self._path))
            self.close()  # and opened anew next time: what went wrong may be mended by then
            raise SpoolError(str(error)) from None

    def _open(self) -> sqlite3.Connection:
        if self._session is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._session = _session(self._path, self._limit)
        return self._session


def _delivery(
    sender: str,
    project_id: str,
    received_at: str,
    check_ids: str,
    headers: str,
    body: bytes,
    time_zone: str,
) -> Delivery:
    return Delivery(
        sender,
        project_id,
        datetime.fromisoformat(received_at),
        tuple(json.loads(check_ids)),
        json.loads(headers),
        body,
        time_zone,
    )


def _session(path: Path, limit: int) -> sqlite3.Connection:
    path.touch(mode=0o600)
    session = sqlite3.connect(path, timeout=2.0, check_same_thread=False)
    try:
        session.execute("pragma journal_mode = wal")
        session.execute("pragma synchronous = full")
        (page_size,) = session.execute("pragma page_size").fetchone()
        # Pragmas take no parameters; both numbers are integers of ours.
        session.execute(f"pragma max_page_count = {int(limit) // int(page_size)}")
        session.executescript(_SCHEMA)
    except BaseException:
        session.close()
        raise
    return session


def check(path: Path) -> None:
    """Makes sure, at the start of a receiver, that ``path`` can hold a spool.

    A damaged one is put aside with whatever it holds, for a person to look at.

    Raises:
        StagelineError: it cannot be made or written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)
        with closing(sqlite3.connect(path, timeout=2.0)) as session:
            session.execute("begin immediate")
            session.rollback()
            (finding,) = session.execute("pragma quick_check(1)").fetchone()
    except (OSError, sqlite3.OperationalError) as error:
        raise StagelineError(
            f"The spool {path} cannot be written: {error}. Set STAGELINE_SPOOL to a file on a local"
            " disk that the receiver may write."
        ) from None
    except sqlite3.DatabaseError as error:
        finding = str(error)
    if finding != "ok":
        _put_aside(path, finding)


def _put_aside(path: Path, finding: str) -> None:
    aside = f"{path.name}.damaged-{time.time_ns()}"
    for suffix in ("", "-wal", "-shm"):
        part = path.with_name(path.name + suffix)
        if part.exists():
            part.rename(path.with_name(aside + suffix))
    log().error("spool is damaged", error=finding, moved_to=str(path.with_name(aside)))
