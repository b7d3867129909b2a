"""Changes of settings: the session that makes them, and the log that the database keeps of them."""

import getpass
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

import psycopg
from psycopg.rows import class_row

from stageline.config import settings
from stageline.database import connect
from stageline.errors import StagelineError
from stageline.settings.names import require_one_line


@dataclass(frozen=True)
class Change:
    """A row of ``settings.audit_log``.

    Attributes:
        key: The columns by which a row of the table is known.
        before: The row before, without secrets; None for one that was added.
        after: The same for after; None for one that was removed.
    """

    audit_id: int
    changed_at: datetime
    changed_by: str
    action: Literal["insert", "update", "delete"]
    table_name: str
    key: list[str]
    before: dict[str, Any] | None
    after: dict[str, Any] | None


@contextmanager
def changing(changed_by: str | None = None) -> Iterator[psycopg.Connection[Any]]:
    """A transaction that changes settings; it is committed at its end, or undone by an exception.

    The database logs each row that it changes, in the same transaction, under a name.

    Args:
        changed_by: The name; where not given, ``STAGELINE_CHANGED_BY``, else the login on this
            machine, else (in a container whose user has no name) the database's role.

    Raises:
        StagelineError: the name cannot be shown in one line, or the server cannot be reached.
    """
    name = changed_by or who()
    if name is not None:
        require_one_line(name, "The name of who changes settings")
    with connect("owner") as session:
        session.execute("select set_config('stageline.changed_by', %s, true)", [name or ""])
        yield session


def audit(table: str | None = None, since: datetime | None = None) -> list[Change]:
    """The changes of settings in the order in which they were made.

    Args:
        table: Only of this table of the schema ``settings``.
        since: Only those made at this instant or later.

    Raises:
        StagelineError: no changes of such a table are logged.
    """
    with connect("owner") as session:
        if table is not None:
            _require_audited(session, table)
        with session.cursor(row_factory=class_row(Change)) as cursor:
            cursor.execute(
                """
                with keys as (
                    select
                        constraints.conrelid as relation,
                        array_agg(columns.attname::text order by columns.attnum) as key
                    from pg_constraint as constraints
                    inner join pg_attribute as columns
                        on
                            constraints.conrelid = columns.attrelid
                            and columns.attnum = any(constraints.conkey)
                    where constraints.contype = 'p'
                    group by constraints.conrelid
                )
                select
                    audit_id, changed_at, changed_by, action, table_name,
                    coalesce(keys.key, '{}') as key, before, after
                from settings.audit_log
                left join keys
                    on to_regclass(format('settings.%%I', table_name)) = keys.relation
                where
                    (%(table)s::text is null or table_name = %(table)s)
                    and (%(since)s::timestamptz is null or changed_at >= %(since)s)
                order by audit_id
                """,
                {"table": table, "since": since},
            )
            return cursor.fetchall()


def _require_audited(session: psycopg.Connection[Any], table: str) -> None:
    audited = [
        name
        for (name,) in session.execute(
            "select tgrelid::regclass::text from pg_trigger"
            " where tgfoid = 'settings.record_change'::regproc order by 1"
        )
    ]
    names = [name.removeprefix("settings.") for name in audited]
    if table not in names:
        raise StagelineError(
            f"No changes of a table {table!r} are kept. These are: {', '.join(names)}."
        )


def who() -> str | None:
    """Who runs this: ``STAGELINE_CHANGED_BY``, else the login on this machine, if it has a name."""
    if settings().changed_by:
        return settings().changed_by
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a number that no account of this machine has
        return None
