"""Runs of groups in ``ops.runs``: planned by slot, claimed by one worker, tried again, ended.

A slot has one run, however many workers plan it; of slots that were missed the last one alone is
run. Whoever runs anything holds one lock, so what is still said to run when somebody else gets the
lock was left by a worker that died, and is run again.
"""

import random
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import psycopg
from psycopg.rows import class_row

from jobs.refresh_config import Group
from jobs.slots import latest, slots

Session = psycopg.Connection[Any]

#: Held by the one process that refreshes.
_LOCK = "stageline refreshes"

#: Seconds until a run is tried again that somebody else's build was in the way of.
BUSY_WAIT = timedelta(seconds=10)

#: Runs of a group that tell how long one takes.
_LATELY = 20


@dataclass(frozen=True)
class Run:
    """A run that was claimed.

    Attributes:
        run_id: Its row in ``ops.runs``.
        group_name: Of which group.
        slot: Of which slot; None where it was asked for by hand.
        attempts: How many, this one included.
        deadline: When its promise is broken; None where nothing was promised.
        waited_seconds: Since its slot; since it was due where it is tried again or has none.
        nodes_to_retry: What is to be built alone; None for everything.
    """

    run_id: uuid.UUID
    group_name: str
    slot: datetime | None
    attempts: int
    deadline: datetime | None
    waited_seconds: float
    nodes_to_retry: list[str] | None


def sync(session: Session, groups: Mapping[str, Group], now: datetime) -> None:
    """Writes the groups to ``ops.refresh_groups``; those that are no longer there are removed."""
    with session.transaction():
        session.execute(
            "delete from ops.refresh_groups where group_name != all(%s)", [list(groups)]
        )
        for group in groups.values():
            session.execute(
                """
                insert into ops.refresh_groups as mine (
                    group_name, schedule, zone, criticality, owner, channels,
                    never_older_than_seconds, done_within_seconds
                ) values (
                    %(name)s, %(schedule)s, %(zone)s, %(criticality)s, %(owner)s, %(channels)s,
                    %(never_older_than)s, %(done_within)s
                )
                on conflict (group_name) do update set
                    schedule = excluded.schedule,
                    zone = excluded.zone,
                    criticality = excluded.criticality,
                    owner = excluded.owner,
                    channels = excluded.channels,
                    never_older_than_seconds = excluded.never_older_than_seconds,
                    done_within_seconds = excluded.done_within_seconds,
                    next_slot = case
                        when (mine.schedule, mine.zone) = (excluded.schedule, excluded.zone)
                            then mine.next_slot
                        else %(next_slot)s
                    end
                """,
                {
                    "name": group.name,
                    "schedule": group.schedule,
                    "zone": group.zone.key,
                    "criticality": group.criticality,
                    "owner": group.owner,
                    "channels": list(group.channels) if group.channels else None,
                    "never_older_than": _seconds(group.never_older_than),
                    "done_within": _seconds(group.done_within),
                    "next_slot": next(slots(group.schedule, group.zone, now)),
                },
            )


def plan(session: Session, groups: Mapping[str, Group], now: datetime) -> int:
    """Makes the runs whose slots have come; gives their number.

    A group that was never planned gets the slot that came last. One that is paused gets none; once
    it goes on, the last one that it missed. The first one that was missed is noted as skipped.
    """
    due = session.execute(
        "select group_name from ops.refresh_groups"
        " where paused_at is null and (next_slot is null or next_slot <= %s)",
        [now],
    ).fetchall()
    return sum(_plan(session, groups[name], now) for (name,) in due if name in groups)


def _plan(session: Session, group: Group, now: datetime) -> bool:
    with session.transaction():
        found = session.execute(
            "select next_slot from ops.refresh_groups where group_name = %s and paused_at is null"
            " and (next_slot is null or next_slot <= %s) for update",
            [group.name, now],
        ).fetchone()
        if found is None:
            return False  # another worker was faster, or somebody paused it
        slot = latest(group.schedule, group.zone, now)
        # Of those that were missed the first one is noted, too: its promise, once broken, is broken
        # until a later one is run.
        for each in sorted({found[0] or slot, slot}):
            made = session.execute(
                "insert into ops.runs"
                " (group_name, slot, requested_at, requested_by, due_at, deadline)"
                " values (%s, %s, %s, 'schedule', %s, %s)"
                " on conflict (group_name, slot) do nothing",
                [group.name, each, now, now, each + group.promised],
            ).rowcount
        session.execute(
            "update ops.refresh_groups set next_slot = %s where group_name = %s",
            [next(slots(group.schedule, group.zone, now)), group.name],
        )
        session.execute(
            "update ops.runs set status = 'skipped', finished_at = %s"
            " where group_name = %s and slot < %s and status = 'waiting'",
            [now, group.name, slot],
        )
        return bool(made)


def request(session: Session, group_name: str, by: str, now: datetime) -> uuid.UUID:
    """Asks for a run by hand, which is due at once; gives its id."""
    row = session.execute(
        "insert into ops.runs (group_name, requested_at, requested_by, due_at)"
        " values (%s, %s, %s, %s) returning run_id",
        [group_name, now, by, now],
    ).fetchone()
    assert row is not None  # noqa: S101 - one row was inserted
    found: uuid.UUID = row[0]
    return found


def take_lock(session: Session) -> bool:
    """Makes this session the one that refreshes, until it ends; False where another one is."""
    row = session.execute(
        "select pg_try_advisory_lock(hashtextextended(%s, 0))", [_LOCK]
    ).fetchone()
    return bool(row and row[0])


def leave_lock(session: Session) -> None:
    """Lets another session refresh."""
    session.execute("select pg_advisory_unlock(hashtextextended(%s, 0))", [_LOCK])


def claim(
    session: Session,
    groups: Mapping[str, Group],
    now: datetime,
    only: uuid.UUID | None = None,
) -> list[Run]:
    """The runs that are due, now running; for the session that holds the lock.

    Args:
        session: The one that holds the lock.
        groups: All there are; a run of another one is cancelled.
        now: The time.
        only: This run alone, due or not.
    """
    with session.transaction():
        _take_up(session, groups, now)
        session.execute(
            "update ops.runs set status = 'cancelled', finished_at = %s,"
            " error = 'Its group is no longer there.'"
            " where status = 'waiting' and group_name != all(%s)",
            [now, list(groups)],
        )
        with session.cursor(row_factory=class_row(Run)) as cursor:
            return cursor.execute(
                """
                update ops.runs
                set status = 'running', attempts = attempts + 1, started_at = %(now)s
                where
                    status = 'waiting'
                    and (due_at <= %(now)s and %(only)s::uuid is null or run_id = %(only)s)
                returning
                    run_id, group_name, slot, attempts, deadline, nodes_to_retry,
                    extract(
                        epoch from %(now)s
                        - case when attempts = 1 and deadline is not null then slot else due_at end
                    )::float as waited_seconds
                """,
                {"now": now, "only": only},
            ).fetchall()


def _take_up(session: Session, groups: Mapping[str, Group], now: datetime) -> None:
    """Makes runs wait again that their worker left, as often as they may be tried."""
    for run_id, group_name, attempts in session.execute(
        "select run_id, group_name, attempts from ops.runs where status = 'running'"
    ).fetchall():
        group = groups.get(group_name)
        is_last = group is None or attempts > group.retries
        session.execute(
            "update ops.runs set status = %s, due_at = %s, finished_at = %s, error = %s"
            " where run_id = %s",
            [
                "failed" if is_last else "waiting",
                now,
                now if is_last else None,
                "Its worker was killed or lost the database.",
                run_id,
            ],
        )


def succeed(
    session: Session, run: Run, build_id: uuid.UUID | None, problem: str | None, now: datetime
) -> None:
    """Ends a run well; ``problem`` is what it could do without."""
    session.execute(
        "update ops.runs set status = 'success', finished_at = %s, build_id = %s, error = %s,"
        " nodes_to_retry = null where run_id = %s",
        [now, build_id, problem, run.run_id],
    )


def fail(
    session: Session,
    run: Run,
    group: Group,
    error: str,
    now: datetime,
    *,
    build_id: uuid.UUID | None = None,
    nodes_to_retry: Sequence[str] | None = None,
) -> datetime | None:
    """Notes that an attempt failed.

    Returns:
        When the run is tried again; None if it is given up.
    """
    # Not for security: it spreads attempts of several groups.
    wait = group.first_wait * 2 ** (run.attempts - 1) * random.uniform(0.8, 1.2)  # noqa: S311
    again = now + wait
    is_last = run.attempts > group.retries or (run.deadline is not None and again > run.deadline)
    session.execute(
        "update ops.runs set status = %s, due_at = %s, finished_at = %s, build_id = %s, error = %s,"
        " nodes_to_retry = %s where run_id = %s",
        [
            "failed" if is_last else "waiting",
            again,
            now if is_last else None,
            build_id,
            error,
            list(nodes_to_retry) if nodes_to_retry else None,
            run.run_id,
        ],
    )
    return None if is_last else again


def due(session: Session, group_name: str, now: datetime) -> uuid.UUID | None:
    """The run of a group that is due, the oldest one; None if there is none."""
    row = session.execute(
        "select run_id from ops.runs"
        " where group_name = %s and status = 'waiting' and due_at <= %s order by due_at limit 1",
        [group_name, now],
    ).fetchone()
    return None if row is None else row[0]


def put_back(session: Session, run: Run, due_at: datetime) -> None:
    """Makes a run wait that could not be tried; it keeps its attempts."""
    session.execute(
        "update ops.runs set status = 'waiting', due_at = %s, attempts = attempts - 1"
        " where run_id = %s",
        [due_at, run.run_id],
    )


def retry(session: Session, group_name: str, now: datetime) -> bool:
    """Makes the last run of a group due again if it failed, with all its attempts."""
    return bool(
        session.execute(
            """
            update ops.runs
            set
                status = 'waiting', due_at = %(now)s, attempts = 0, finished_at = null,
                deadline = null
            where
                status = 'failed'
                and run_id = (
                    select run_id from ops.runs
                    where group_name = %(group)s and status != 'skipped'
                    order by requested_at desc
                    limit 1
                )
            """,
            {"now": now, "group": group_name},
        ).rowcount
    )


def pause(session: Session, group_name: str, by: str, now: datetime) -> bool:
    """Stops a schedule, and cancels what waits; False if the group was paused before."""
    with session.transaction():
        changed = session.execute(
            "update ops.refresh_groups set paused_at = %s, paused_by = %s"
            " where group_name = %s and paused_at is null",
            [now, by, group_name],
        ).rowcount
        session.execute(
            "update ops.runs set status = 'cancelled', finished_at = %s, error = %s"
            " where group_name = %s and status = 'waiting'",
            [now, f"Paused by {by}.", group_name],
        )
    return bool(changed)


def resume(session: Session, group_name: str) -> bool:
    """Lets a group go on; the last slot that it missed is run. False if it was not paused."""
    return bool(
        session.execute(
            "update ops.refresh_groups set paused_at = null, paused_by = null"
            " where group_name = %s and paused_at is not null",
            [group_name],
        ).rowcount
    )


def typical_seconds(session: Session) -> dict[str, float]:
    """Seconds within which nine of ten of the last good runs of each group were done."""
    return _lately(session, 0.9)


def usual_seconds(session: Session) -> dict[str, float]:
    """Seconds that the last good runs of each group took, as their median."""
    return _lately(session, 0.5)


def _lately(session: Session, share: float) -> dict[str, float]:
    return {
        name: float(seconds)
        for name, seconds in session.execute(
            """
            select
                group_name,
                percentile_cont(%s) within group (
                    order by extract(epoch from finished_at - started_at)
                )
            from (
                select
                    group_name, started_at, finished_at,
                    -- A build that groups shared took as long as the longest of them; so it tells
                    -- how long one takes only where it was never alone.
                    dense_rank() over (partition by group_name order by is_shared) as kind,
                    row_number() over (
                        partition by group_name, is_shared order by finished_at desc
                    ) as nth
                from (
                    select
                        group_name, started_at, finished_at,
                        count(*) over (partition by build_id) > 1 and build_id is not null
                            as is_shared
                    from ops.runs
                    where status = 'success'
                ) as runs
            ) as ended
            where kind = 1 and nth <= %s
            group by group_name
            """,
            [share, _LATELY],
        ).fetchall()
    }


def expect(session: Session, now: datetime) -> None:
    """Writes when the next run of each group should be done (``expected_at``).

    What runs ends after it has taken as long as usual; then begins all that is due by then, which
    takes as long as the longest of it, and so on.
    """
    typical = typical_seconds(session)
    rows = session.execute(
        """
        select
            groups.group_name,
            case when groups.paused_at is null then groups.next_slot end,
            min(runs.due_at) filter (where runs.status = 'waiting'),
            min(runs.started_at) filter (where runs.status = 'running')
        from ops.refresh_groups as groups
        left join ops.runs using (group_name)
        group by groups.group_name
        """
    ).fetchall()
    started = {name: at for name, _, _, at in rows if at}
    due = {
        name: min(at for at in (next_slot, due_at) if at)
        for name, next_slot, due_at, started_at in rows
        if not started_at and (next_slot or due_at)
    }

    def end(begins: datetime, names: Iterable[str]) -> datetime:
        seconds = max(typical.get(name, 0.0) for name in names)
        return max(begins + timedelta(seconds=seconds), now)

    free = now
    expected: dict[str, datetime | None] = dict.fromkeys(name for name, *_ in rows)
    for begins in sorted(set(started.values())):
        together = [name for name, at in started.items() if at == begins]
        free = max(free, end(begins, together))
        expected.update(dict.fromkeys(together, end(begins, together)))
    while due:
        begins = max(free, min(due.values()))
        together = [name for name, at in due.items() if at <= begins]
        free = end(begins, together)
        for name in together:
            del due[name]
            expected[name] = free
    with session.cursor() as cursor:
        cursor.executemany(
            "update ops.refresh_groups set expected_at = %s"
            " where group_name = %s and expected_at is distinct from %s",
            [(at, name, at) for name, at in expected.items()],
        )


def _seconds(duration: timedelta | None) -> int | None:
    return None if duration is None else round(duration.total_seconds())
