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

#: Rows that stay of each kind, however old.
LAST = 20

#: Of quality checks more: so many there may be of single entities since the last one of everything,
#: which `jobs.alert_sources` looks for.
LAST_CHECKS = 100

#: Rows of a snapshot that are removed at once.
_SNAPSHOT_ROWS = 5000


@dataclass(frozen=True)
class _History:
    """A table of job history.

    Attributes:
        table: In schema ops.
        key: Its key.
        ended_at: Instant by which its rows get old; one without it stays.
        each: What kinds of rows are, of each of which the last ones stay.
        together: Rows that have this in common stay together; default: the key.
        may_go: Further condition on a row that may be removed.
        last: How many stay of a kind.
        at_once: Rows that are removed at once.
    """

    table: LiteralString
    key: LiteralString
    ended_at: LiteralString
    each: LiteralString
    may_go: LiteralString = "true"
    together: LiteralString | None = None
    last: int = LAST
    at_once: int = 1000

    def old(self) -> sql.Composed:
        """``from`` and ``where`` of the rows that may go; ``%(before)s`` ends what is old."""
        table, ended_at = sql.SQL(f"ops.{self.table}"), sql.SQL(self.ended_at)
        return sql.SQL(
            """
            from {table}
            where
                {ended_at} < %(before)s
                and {may_go}
                and {together} not in (
                    select kept
                    from (
                        select
                            {together} as kept,
                            {ended_at},
                            row_number() over (partition by {each} order by {ended_at} desc) as nth
                        from {table}
                        where {ended_at} is not null
                    ) as ranked
                    where nth <= {last} or {ended_at} >= %(before)s
                )
            """
        ).format(
            table=table,
            together=sql.SQL(self.together or self.key),
            ended_at=ended_at,
            may_go=sql.SQL(self.may_go),
            each=sql.SQL(self.each),
            last=self.last,
        )


_HISTORIES = (
    _History(
        "runs",
        "run_id",
        "finished_at",
        # How long a group takes is told by runs that shared their build with no other group.
        "group_name, status, build_id in"
        " (select build_id from ops.runs group by build_id having count(*) > 1)",
        # Of a table that is late, the first slot that it misses says since when (model_freshness).
        """
        status not in ('waiting', 'running')
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
        "coalesce(build_id, run_id)",
    ),
    _History(
        "builds",
        "build_id",
        "finished_at",
        "status",
        """
        not exists (select from ops.model_states where model_states.build_id = builds.build_id)
        and not exists (select from ops.runs where runs.build_id = builds.build_id)
        """,
        at_once=20,  # each has a row for all of its models
    ),
    _History(
        "quality_runs",
        "run_id",
        "started_at",
        "success",
        last=LAST_CHECKS,
        at_once=20,  # each has a row for all of its rules
    ),
    _History(
        "loads",
        "load_id",
        "finished_at",
        "source, entity, project_id, status, error is null",
        "file_name is null",  # a load of a file says where its rows came from
    ),
    _History("backups", "backup_id", "finished_at", "error is null"),
    _History(
        "alerts",
        "alert_id",
        "resolved_at",
        "kind",
        """
        not exists (
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
    values = {"before": now - kept}
    with connect("jobs", autocommit=True) as session:
        for each in _HISTORIES:
            old = each.old()
            statement = sql.SQL("delete from ops.{} where {} in (select {} {} limit {})").format(
                *map(sql.Identifier, (each.table, each.key, each.key)), old, each.at_once
            )
            rows = _count(session, old, values) if is_dry else _remove(session, statement, values)
            yield f"ops.{each.table}", rows


def _snapshots(kept: timedelta | None, now: datetime, *, is_dry: bool) -> Iterator[tuple[str, int]]:
    if kept is None:
        return
    values = {"before": now - kept}
    with connect("transformer", autocommit=True) as session:
        for (name,) in session.execute(_SNAPSHOTS).fetchall():
            table = sql.Identifier("snapshots", name)
            old = sql.SQL("from {} where dbt_valid_to < %(before)s").format(table)
            statement = sql.SQL(
                "delete from {} where ctid = any(array(select ctid {} limit {}))"
            ).format(table, old, _SNAPSHOT_ROWS)
            rows = _count(session, old, values) if is_dry else _remove(session, statement, values)
            yield f"snapshots.{name}", rows


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
