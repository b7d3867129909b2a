"""The pace at which the API of an account is called, held across all processes and machines.

Kept in ``ops.api_pace`` and by the clock of the database, for the role of the jobs. Calls get slots
at even distances. Counted are requests, as the short limits of the CRMs do (pipedrive 1.9, keycrm
2.1); what a call costs of a daily budget is not: its size is not known, and the CRM says when it is
used up.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import psycopg

#: Seconds within which slots are taken together: to take one costs a millisecond itself.
TOGETHER = 0.01

#: The kind of all calls that are not counted apart; a block of it holds for every kind.
CALLS = "calls"


class Account(NamedTuple):
    """An account at a CRM: a row of ``settings.projects``."""

    source_system: str
    project_id: str


@dataclass(frozen=True)
class Pace:
    """At most ``calls`` slots in any span of ``seconds``.

    A call may come up to one slot's length late (the network, a busy machine); then a span may hold
    one more. So give one less than the CRM allows.

    Attributes:
        calls: How many.
        seconds: In what time.
        grows: Larger plans allow more; otherwise an account's allowance does not count for it.
    """

    calls: int
    seconds: float
    grows: bool = True

    def times(self, allowance: float) -> "Pace":
        """The pace of an account that may do so many times as much."""
        if not self.grows:
            return self
        return Pace(max(1, int(self.calls * allowance)), self.seconds)

    @property
    def slot(self) -> float:
        """Seconds from one call to the next."""
        return self.seconds / self.calls

    @property
    def together(self) -> int:
        """How many slots lie so close that they are taken by one word to the database."""
        return max(1, int(TOGETHER / self.slot))


class BusyError(Exception):
    """The account has no slot soon: to be tried again after ``seconds``; the message says why."""

    def __init__(self, reason: str, seconds: float) -> None:
        super().__init__(reason)
        self.seconds = seconds


def reserve(
    connection: psycopg.Connection[Any],
    account: Account,
    pace: Pace,
    patience: float = 2.0,
    kind: str = CALLS,
    slots: int = 1,
) -> float:
    """Takes the next slot of the account; gives the seconds to wait for it.

    Args:
        connection: In autocommit mode, else the account stands still until its transaction ends.
        account: The account to be called.
        pace: Its pace.
        patience: Longest wait, in seconds, for which a slot is taken.
        kind: Of the call, where the CRM counts some calls apart.
        slots: How many slots are taken, the first of which is waited for.

    Raises:
        BusyError: it would be longer, or the account is blocked; no slot was taken.
    """
    length = pace.slot * slots
    values = {**account._asdict(), "slot": length, "patience": patience, "kind": kind}
    row = connection.execute(
        """
        insert into ops.api_pace as pace (source_system, project_id, kind, next_at)
        select
            %(source_system)s,
            %(project_id)s,
            %(kind)s,
            clock_timestamp() + make_interval(secs => %(slot)s)
        where
            not exists (
                select from ops.api_pace as whole
                where
                    whole.source_system = %(source_system)s
                    and whole.project_id = %(project_id)s
                    and whole.kind = 'calls'
                    and whole.blocked_until > clock_timestamp()
            )
        on conflict (source_system, project_id, kind) do update
        set next_at
            = greatest(pace.next_at, clock_timestamp()) + make_interval(secs => %(slot)s)
        where
            pace.blocked_until <= clock_timestamp()
            and pace.next_at <= clock_timestamp() + make_interval(secs => %(patience)s)
        returning
            extract(epoch from next_at - clock_timestamp())::double precision - %(slot)s
        """,
        values,
    ).fetchone()
    if row is not None:
        return max(float(row[0]), 0.0)
    raise _busy(connection, account, kind)


def block(
    connection: psycopg.Connection[Any], account: Account, seconds: float, reason: str
) -> None:
    """Lets nobody call the account for ``seconds``; a longer block that is there stays."""
    connection.execute(
        """
        insert into ops.api_pace as pace (
            source_system, project_id, blocked_until, blocked_reason
        )
        values (
            %(source_system)s,
            %(project_id)s,
            clock_timestamp() + make_interval(secs => %(seconds)s),
            %(reason)s
        )
        on conflict (source_system, project_id, kind) do update
        set
            blocked_until = excluded.blocked_until,
            blocked_reason = excluded.blocked_reason
        where pace.blocked_until < excluded.blocked_until
        """,
        {**account._asdict(), "seconds": seconds, "reason": reason},
    )


def _busy(connection: psycopg.Connection[Any], account: Account, kind: str) -> BusyError:
    """Why there was no slot; may be over by the time that it is read, which does no harm."""
    row = connection.execute(
        """
        select
            extract(
                epoch from max(greatest(next_at, blocked_until)) - clock_timestamp()
            )::double precision as seconds,
            max(case when blocked_until > clock_timestamp() then blocked_reason end) as reason
        from ops.api_pace
        where
            source_system = %(source_system)s
            and project_id = %(project_id)s
            and kind in ('calls', %(kind)s)
        """,
        {**account._asdict(), "kind": kind},
    ).fetchone()
    seconds, reason = row or (0.0, None)
    return BusyError(reason or "other calls of the account come first", max(seconds, 0.0))
