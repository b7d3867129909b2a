"""Archives what deliveries said: old months leave the database for files, and come back if asked.

What is known of a delivery stays for ever (``raw.deliveries``), and so do the events that it gave:
KPIs are made of these. Only headers and bodies leave, once a file that was read back and compared
has them.

A row of ``ops.archives`` claims the name of a file before it is written, and says that it is whole
in the transaction in which the bodies leave the table. So whatever is killed when: a body is in the
table, or in a file that is known to be whole, and no body is in two files.
"""

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, fields, replace
from datetime import UTC, date, datetime, timedelta
from itertools import chain, islice
from time import monotonic
from typing import Any
from uuid import UUID

import psycopg
from psycopg.rows import class_row

from jobs import archive_config, archive_files
from jobs.archive_config import ArchiveConfig
from jobs.archive_files import Body
from stageline.database import connect
from stageline.errors import TRY_LATER, StagelineError
from stageline.progress import log

#: Months ahead for which there is a table to write to.
MONTHS_AHEAD = 3

#: What landed, was replayed or was restored so lately stays in the database: somebody may be at it.
LATELY = timedelta(days=30)

#: Deliveries of a file, and bytes of their bodies, at most.
_ROWS, _BYTES = 50_000, 256 * 1024 * 1024

#: Rows that are fetched, or put back, at a time.
_BATCH = 16

#: Seconds that the worker archives a night; the rest waits for the next one. With the last file,
#: it is done in `LONGEST`.
_BUDGET = 1800.0
LONGEST = 2 * _BUDGET

#: Advisory lock of whoever archives or restores.
_LOCK = 7_226_024


@dataclass(frozen=True)
class Due:
    """Bodies that are to be archived: of a project, received in a month of UTC.

    Attributes:
        source_system, project_id, month: Of which; the month by its first day.
        deliveries, body_bytes: How many, and how long they are together.
    """

    source_system: str
    project_id: str
    month: date
    deliveries: int
    body_bytes: int


@dataclass(frozen=True)
class Archive:
    """A row of ``ops.archives`` whose file is whole."""

    file_name: str
    source_system: str
    project_id: str
    month: date
    archived_at: datetime
    restored_at: datetime | None
    delivery_count: int
    file_bytes: int
    file_sha256: bytes


class _OverError(Exception):
    """A file is given up, as whoever asked for it has to end."""


_COLUMNS = ", ".join(field.name for field in fields(Archive))

# Of a delivery whose body is in the database: whether nobody is at it any more.
_SETTLED = """
    deliveries.landed_at < %(lately)s
    and not exists (
        select from raw.unparsed_deliveries as unparsed
        where unparsed.delivery_id = deliveries.delivery_id
    )
    and not exists (
        select from raw.replays
        where replays.delivery_id = deliveries.delivery_id and replays.replayed_at >= %(lately)s
    )
"""

_DUE = f"""
select
    deliveries.source_system,
    deliveries.project_id,
    date_trunc('month', received_at at time zone 'UTC')::date as month,
    count(*) as deliveries,
    sum(deliveries.body_bytes)::bigint as body_bytes
from raw.deliveries
inner join raw.delivery_bodies using (delivery_id, received_at)
where
    received_at < %(before)s
    and {_SETTLED}
group by 1, 2, 3
order by 3, 1, 2
"""  # noqa: S608 - our own words

_BODIES = f"""
select
    delivery_id,
    deliveries.sender,
    received_at,
    delivery_bodies.headers::text,
    delivery_bodies.body,
    deliveries.body_sha256
from raw.deliveries
inner join raw.delivery_bodies using (delivery_id, received_at)
where
    deliveries.source_system = %(source_system)s
    and deliveries.project_id = %(project_id)s
    and received_at >= %(begins)s
    and received_at < %(ends)s
    and {_SETTLED}
limit {_ROWS}
"""  # noqa: S608 - our own words

_REMOVE = """
delete from raw.delivery_bodies
where delivery_id = any(%(ids)s) and received_at >= %(begins)s and received_at < %(ends)s
"""


def make_partitions() -> int:
    """Makes the tables of the months to come, and those that rows wait for; gives how many.

    Somebody who reads bodies holds it up; then it is left to the next time.

    Raises:
        StagelineError: the database cannot be reached.
    """
    with connect("jobs", autocommit=True) as session:
        return _partitions(session, "select raw.make_body_partitions(%s)", MONTHS_AHEAD)


def due(config: ArchiveConfig, now: datetime) -> list[Due]:
    """What is to be archived at an instant, the oldest month first.

    Raises:
        StagelineError: the database cannot be reached.
    """
    given = {"before": _first_instant(_before(config, now)), "lately": now - LATELY}
    with (
        connect("transformer") as reading,
        reading.cursor(row_factory=class_row(Due)) as cursor,
    ):
        found = cursor.execute(_DUE, given).fetchall()
    # Of a month that was restored, a second file would hold what the first one does.
    restored = {_whose(file) for file in archives() if file.restored_at is not None}
    return [each for each in found if _whose(each) not in restored]


def archive(
    config: ArchiveConfig, now: datetime, is_over: Callable[[], bool] = lambda: False
) -> Iterator[Archive]:
    """Archives what is due, and takes restored bodies out again whose time is over.

    Args:
        config: Where to, and what is due.
        now: The present.
        is_over: Is asked again and again whether to end. A file that is being written then is given
            up.

    Yields:
        Each file, once its bodies have left the database.

    Raises:
        StagelineError: a file cannot be written or read, or another process archives. What is not
            archived is still in the database.
    """
    with _sole() as jobs:
        _clear_unfinished(jobs, config)
        for each in due(config, now):
            left = each.deliveries
            while left > 0:
                try:
                    written = _archive_one(jobs, config, each, now, is_over)
                except _OverError:
                    return
                if written is None:
                    break
                left -= written.delivery_count
                yield written
        for restored in archives():
            if is_over():
                return
            if restored.restored_at is not None and restored.restored_at < now - LATELY:
                yield _take_out_again(jobs, config, restored)
        _partitions(jobs, "select raw.drop_empty_body_partitions(%s)", _before(config, now))


def archives(project_id: str | None = None, month: date | None = None) -> list[Archive]:
    """The files that are whole: all, or those of a project or month; the oldest month first.

    Raises:
        StagelineError: the database cannot be reached.
    """
    with connect("jobs") as session, session.cursor(row_factory=class_row(Archive)) as cursor:
        return cursor.execute(
            f"""
            select {_COLUMNS}
            from ops.archives
            where
                archived_at is not null
                and project_id = coalesce(%(project_id)s, project_id)
                and month = coalesce(%(month)s, month)
            order by month, source_system, project_id, archived_at
            """,  # noqa: S608 - our own names
            {"project_id": project_id, "month": month},
        ).fetchall()


def restore(config: ArchiveConfig, chosen: Sequence[Archive]) -> Iterator[tuple[Archive, int]]:
    """Puts the bodies of files back into the database; doing it twice changes nothing.

    The files stay. After `LATELY` the bodies leave the database again.

    Yields:
        Each file, and how many bodies of it were not in the database.

    Raises:
        StagelineError: a file is missing or is not what was written, or another process archives.
    """
    with (
        _sole() as jobs,
        connect("transformer") as reading,
        connect("receiver", autocommit=True) as writing,
    ):
        for each in chosen:
            require_unchanged(config, each)
            # First of all: a body that is in the table again is not to go into a second file.
            jobs.execute(
                "update ops.archives set restored_at = now() where file_name = %s",
                [each.file_name],
            )
            with writing.transaction():
                count = _put_back(reading, writing, config, each)
            yield each, count


def require_unchanged(config: ArchiveConfig, file: Archive) -> None:
    """Makes sure that a file is what was written.

    Raises:
        StagelineError: it is missing, cannot be read, or was changed.
    """
    path = config.folder / file.file_name
    if archive_files.sha256(path) != file.file_sha256:
        raise StagelineError(
            f"The archive {path} is not what was written: its SHA-256 differs from that in"
            " ops.archives. Put it back from a copy."
        )


def archive_nightly(is_stopped: Callable[[], bool]) -> Mapping[str, object] | None:
    """What the worker does once a day: tables of the months to come, and what is due.

    Args:
        is_stopped: Whether the worker is to stop.

    Returns:
        Figures for the log; None where nothing was to be done.

    Raises:
        StagelineError: as `archive` and `archive_config.read`.
    """
    partitions = make_partitions()
    files = deliveries = 0
    config = archive_config.read()
    if config is not None:
        config.require_folder()
        until = monotonic() + _BUDGET
        for written in archive(
            config, datetime.now(UTC), lambda: is_stopped() or monotonic() > until
        ):
            files += 1
            deliveries += written.delivery_count
    if not (partitions or files):
        return None
    return {"partitions": partitions, "files": files, "deliveries": deliveries}


@contextmanager
def _sole() -> Iterator[psycopg.Connection[Any]]:
    """A session of the one process that archives or restores."""
    with connect("jobs", autocommit=True) as session:
        if not _number(session, "select pg_try_advisory_lock(%s)::integer", _LOCK):
            raise StagelineError(
                "Another process archives or restores now. Try again when it is done.",
                exit_code=TRY_LATER,
            )
        yield session


def _clear_unfinished(jobs: psycopg.Connection[Any], config: ArchiveConfig) -> None:
    """Removes what a process left that was killed: the bodies are still in the database."""
    unfinished = jobs.execute(
        "select file_name from ops.archives where archived_at is null"
    ).fetchall()
    for (name,) in unfinished:
        archive_files.remove(config.folder, name)
        jobs.execute("delete from ops.archives where file_name = %s", [name])


def _archive_one(
    jobs: psycopg.Connection[Any],
    config: ArchiveConfig,
    wanted: Due,
    now: datetime,
    is_over: Callable[[], bool],
) -> Archive | None:
    """Writes a file, as large as one may be; None where there is nothing to write any more.

    Raises:
        _OverError: it was given up.
    """
    digests: dict[UUID, bytes] = {}
    with (
        connect("transformer") as reading,
        closing(_bodies(reading, wanted, now, digests, is_over)) as bodies,
    ):
        first = next(bodies, None)
        if first is None:
            return None
        name = _claim(jobs, config, wanted)
        archive_files.write(config.folder, name, chain([first], bodies))
    path = config.folder / name
    _require_same(config, name, digests)
    checksum, size = archive_files.sha256(path), path.stat().st_size
    with jobs.transaction(), jobs.cursor(row_factory=class_row(Archive)) as cursor:
        _remove(jobs, wanted.month, list(digests), expected=len(digests))
        return cursor.execute(
            f"""
            update ops.archives
            set archived_at = now(), delivery_count = %s, file_bytes = %s, file_sha256 = %s
            where file_name = %s
            returning {_COLUMNS}
            """,  # noqa: S608 - our own names
            [len(digests), size, checksum, name],
        ).fetchone()


def _claim(jobs: psycopg.Connection[Any], config: ArchiveConfig, wanted: Due) -> str:
    """Notes a name that no other file has, whether we know of that or not."""
    number = 0
    while True:
        number += 1
        name = archive_files.file_name(
            wanted.source_system, wanted.project_id, wanted.month, number
        )
        if (config.folder / name).exists():
            continue
        noted = jobs.execute(
            "insert into ops.archives (file_name, source_system, project_id, month)"
            " values (%s, %s, %s, %s) on conflict do nothing",
            [name, wanted.source_system, wanted.project_id, wanted.month],
        )
        if noted.rowcount:
            return name


def _bodies(
    reading: psycopg.Connection[Any],
    wanted: Due,
    now: datetime,
    digests: dict[UUID, bytes],
    is_over: Callable[[], bool],
) -> Generator[Body]:
    """The bodies of a file; notes in ``digests`` what the file has to hold."""
    size = 0
    with reading.cursor(name="bodies", binary=True) as cursor:
        cursor.execute(
            _BODIES,
            {
                "source_system": wanted.source_system,
                "project_id": wanted.project_id,
                **_span(wanted.month),
                "lately": now - LATELY,
            },
        )
        while size < _BYTES and (rows := cursor.fetchmany(_BATCH)):
            if is_over():
                raise _OverError
            for delivery_id, sender, received_at, headers, said, body_sha256 in rows:
                body = Body(
                    *(delivery_id, wanted.source_system, wanted.project_id),
                    *(sender, received_at, headers, said),
                )
                _require_body(body, body_sha256, "in the database")
                digests[delivery_id] = body.digest()
                size += len(said)
                yield body


def _require_same(config: ArchiveConfig, name: str, digests: Mapping[UUID, bytes]) -> None:
    """Reads a file back: it has to hold exactly what was read from the database."""
    left = dict(digests)
    path = config.folder / name
    for body in archive_files.read(path):
        if left.pop(body.delivery_id, None) != body.digest():
            raise StagelineError(
                f"{path} does not hold what was written to it: its disk is not sound, or somebody"
                " else writes there. Nothing of it left the database."
            )
    if left:
        raise StagelineError(
            f"{path} lacks {len(left)} deliveries that were written to it: its disk is not sound."
            " Nothing of it left the database."
        )


def _require_body(body: Body, expected: bytes, where: str) -> None:
    if body.body_sha256() != expected:
        raise StagelineError(
            f"The body of delivery {body.delivery_id} {where} is not what came: its SHA-256 differs"
            " from that in raw.deliveries. Compare it with a backup."
        )


def _take_out_again(
    jobs: psycopg.Connection[Any], config: ArchiveConfig, restored: Archive
) -> Archive:
    """Removes bodies that were put back, as their file still has them."""
    require_unchanged(config, restored)
    ids = [body.delivery_id for body in archive_files.read(config.folder / restored.file_name)]
    with jobs.transaction():
        _remove(jobs, restored.month, ids)
        jobs.execute(
            "update ops.archives set restored_at = null where file_name = %s",
            [restored.file_name],
        )
    return replace(restored, restored_at=None)


def _remove(
    jobs: psycopg.Connection[Any], month: date, ids: Sequence[UUID], expected: int | None = None
) -> None:
    removed = jobs.execute(_REMOVE, {"ids": list(ids), **_span(month)}).rowcount
    if expected not in (None, removed):
        raise StagelineError(
            f"{expected} bodies were archived, and {removed} of them are in the database:"
            " somebody else removes them. Nothing was removed."
        )


def _put_back(
    reading: psycopg.Connection[Any],
    writing: psycopg.Connection[Any],
    config: ArchiveConfig,
    file: Archive,
) -> int:
    count = 0
    bodies = archive_files.read(config.folder / file.file_name)
    while batch := list(islice(bodies, _BATCH)):
        expected = dict(
            reading.execute(
                "select delivery_id, body_sha256 from raw.deliveries where delivery_id = any(%s)",
                [[body.delivery_id for body in batch]],
            ).fetchall()
        )
        for body in batch:
            if body.delivery_id not in expected:
                raise StagelineError(
                    f"{file.file_name} holds delivery {body.delivery_id}, of which this"
                    " database does not know. Is it the folder of another one?"
                )
            _require_body(body, expected[body.delivery_id], f"in {file.file_name}")
        with writing.cursor() as cursor:
            cursor.executemany(
                "insert into raw.delivery_bodies (delivery_id, received_at, headers, body)"
                " values (%s, %s, %s::jsonb, %b) on conflict do nothing",
                [(body.delivery_id, body.received_at, body.headers, body.body) for body in batch],
            )
            count += cursor.rowcount
    return count


def _before(config: ArchiveConfig, now: datetime) -> date:
    """The first day of the first month that is not to be archived yet."""
    months = now.astimezone(UTC).year * 12 + now.astimezone(UTC).month - 1 - config.after_months
    return date(months // 12, months % 12 + 1, 1)


def _span(month: date) -> dict[str, datetime]:
    following = (month + timedelta(days=31)).replace(day=1)
    return {"begins": _first_instant(month), "ends": _first_instant(following)}


def _first_instant(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


def _whose(each: Due | Archive) -> tuple[str, str, date]:
    return each.source_system, each.project_id, each.month


def _partitions(session: psycopg.Connection[Any], query: Any, given: object) -> int:
    try:
        return _number(session, query, given)
    except psycopg.errors.LockNotAvailable:
        log().info("partitions stay as they are", reason="somebody reads what deliveries said")
        return 0


def _number(session: psycopg.Connection[Any], query: Any, *given: object) -> int:
    ((found,),) = session.execute(query, given).fetchall()
    return int(found)
