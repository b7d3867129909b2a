"""Removes job history and snapshots that are older than they are kept.

What something still stands on is kept though it is old: the last runs of each group and kind of
end, by which durations are told; the last loads of each account and the builds that the tables are
of, by which freshness is; the last backups; open alerts, and what is to be sent. Little is removed
at once, so that nobody waits for it.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, LiteralString

import psycopg
from psycopg import sql

from jobs.retention import Retention, read
from stageline.database import connect

#: Runs, loads, builds and checks of a kind that stay, however old.
LAST = 20

#: Quality checks of single entities that there may be since the last one of everything, which
#: `jobs.alert_sources` looks for.
LAST_CHECKS = 100

#: Rows of a snapshot that are removed at once.
_SNAPSHOT_ROWS = 5000


@dataclass(frozen=True)
class _History:
    """A table of job history.

    Attributes:
        table: In schema ops.
        key: Its key.
        is_old: Condition on a row that it may go; ``%(before)s`` is the end of what is old.
        at_once: Rows that are removed at once.
    """

    table: LiteralString
    key: LiteralString
    is_old: LiteralString
    at_once: int = 1000


_HISTORIES = (
    _History(
        "runs",
        "run_id",
        # Of a table that is late, the first slot that it misses says since when (model_freshness).
        """
        finished_at < %(before)s
        and status not in ('waiting', 'running')
        and run_id not in (
            select run_id
            from (
                select
                    run_id,
                    row_number() over (
                        partition by group_name, status order by finished_at desc
                    ) as nth
                from ops.runs
            ) as ranked
            where nth <= %(last)s
        )
        and run_id not in (
            select missed.run_id
            from ops.model_states
            cross join lateral (
                select run_id
                from ops.runs
                where
                    runs.group_name = model_states.group_name
                    and runs.slot > model_states.reflects_until
                order by runs.slot
                limit 1
            ) as missed
        )
        """,
    ),
    _History(
        "builds",
        "build_id",
        """
        finished_at < %(before)s
        and not exists (
            select from ops.model_states where model_states.build_id = builds.build_id
        )
        and not exists (select from ops.runs where runs.build_id = builds.build_id)
        and build_id not in (
            select build_id
            from (
                select
                    build_id,
                    row_number() over (partition by status order by started_at desc) as nth
                from ops.builds
            ) as ranked
            where nth <= %(last)s
        )
        """,
        # Each has a row for all of its models.
        at_once=20,
    ),
    _History(
        "quality_runs",
        "run_id",
        """
        started_at < %(before)s
        and run_id not in (
            select run_id
            from (
                select
                    run_id,
                    success,
                    row_number() over (partition by success order by started_at desc) as nth,
                    row_number() over (order by started_at desc) as nth_of_all
                from ops.quality_runs
                where finished_at is not null
            ) as ranked
            where nth_of_all <= %(last_checks)s or nth = 1
        )
        """,
        # Each has a row for all of its rules.
        at_once=20,
    ),
    _History(
        "loads",
        "load_id",
        # A load of a file says where its rows came from.
        """
        finished_at < %(before)s
        and file_name is null
        and load_id not in (
            select load_id
            from (
                select
                    load_id,
                    row_number() over (
                        partition by source, entity, project_id, status, error is null
                        order by started_at desc
                    ) as nth
                from ops.loads
            ) as ranked
            where nth <= %(last)s
        )
        """,
    ),
    _History(
        "backups",
        "backup_id",
        """
        finished_at < %(before)s
        and backup_id not in (
            select backup_id
            from (
                select
                    backup_id,
                    row_number() over (
                        partition by error is null order by started_at desc
                    ) as nth
                from ops.backups
            ) as ranked
            where nth <= %(last)s
        )
        """,
    ),
    _History(
        "alerts",
        "alert_id",
        """
        resolved_at < %(before)s
        and not exists (
            select from ops.notifications
            where notifications.alert_id = alerts.alert_id and notifications.next_at is not null
        )
        """,
    ),
)


def prune(
    retention: Retention | None = None,
    now: datetime | None = None,
    *,
    is_dry: bool = False,
) -> Mapping[str, int]:
    """Removes what is older than it is kept.

    Args:
        retention: Default: as the file says.
        now: The instant; default: this one.
        is_dry: Only count.

    Returns:
        Rows that were, or would be, removed, by table; those without any are left out.

    Raises:
        StagelineError: the file has a mistake, or the database cannot be reached.
    """
    retention, now = retention or read(), now or datetime.now(UTC)
    found = (
        *_history(retention.job_history, now, is_dry=is_dry),
        *_snapshots(retention.snapshots, now, is_dry=is_dry),
    )
    return {table: rows for table, rows in found if rows}


def prune_by_the_clock() -> Mapping[str, object] | None:
    """For the worker: gives figures for its log, None where there was nothing to remove."""
    return {"rows": found} if (found := prune()) else None


def _history(kept: timedelta | None, now: datetime, *, is_dry: bool) -> Iterator[tuple[str, int]]:
    if kept is None:
        return
    values = {"before": now - kept, "last": LAST, "last_checks": LAST_CHECKS}
    with connect("jobs", autocommit=True) as session:
        for each in _HISTORIES:
            table, key = sql.Identifier("ops", each.table), sql.Identifier(each.key)
            old = sql.SQL("from {} where {}").format(table, sql.SQL(each.is_old))
            yield (
                f"ops.{each.table}",
                _count(session, old, values)
                if is_dry
                else _remove(
                    session,
                    sql.SQL("delete from {} where {} in (select {} {} limit {})").format(
                        table, key, key, old, each.at_once
                    ),
                    values,
                ),
            )


def _snapshots(kept: timedelta | None, now: datetime, *, is_dry: bool) -> Iterator[tuple[str, int]]:
    if kept is None:
        return
    values = {"before": now - kept}
    with connect("transformer", autocommit=True) as session:
        for (name,) in session.execute(_SNAPSHOTS).fetchall():
            table = sql.Identifier("snapshots", name)
            old = sql.SQL("from {} where dbt_valid_to < %(before)s").format(table)
            yield (
                f"snapshots.{name}",
                _count(session, old, values)
                if is_dry
                else _remove(
                    session,
                    sql.SQL(
                        "delete from {} where ctid = any(array(select ctid {} limit {}))"
                    ).format(table, old, _SNAPSHOT_ROWS),
                    values,
                ),
            )


def _count(
    session: psycopg.Connection[Any], old: sql.Composed, values: Mapping[str, object]
) -> int:
    row = session.execute(sql.SQL("select count(*) {}").format(old), values).fetchone()
    return int(row[0]) if row else 0


def _remove(
    session: psycopg.Connection[Any], statement: sql.Composed, values: Mapping[str, object]
) -> int:
    removed = 0
    while (rows := session.execute(statement, values).rowcount) > 0:
        removed += rows
    return removed


_SNAPSHOTS = """
select relname
from pg_attribute
inner join pg_class on attrelid = pg_class.oid
where relnamespace = to_regnamespace('snapshots') and relkind = 'r' and attname = 'dbt_valid_to'
order by relname
"""
