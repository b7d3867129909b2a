"""Sends what `jobs.alerts` wrote down for channels: grouped, again until it arrives, at least once.

Any number of workers may do so: one of them claims what is due for a channel. A worker that dies
loses its claim when the lease ends, and what it may have sent is sent again, with the same ids.
"""

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any, Literal
from uuid import UUID, uuid4

import psycopg
from psycopg.rows import class_row, dict_row

from jobs.channels import Channel, Criticality, PagerDuty, Webhook, channels
from jobs.senders import Message, Notice, send
from loaders.api import ApiError, FailedError, RefusedError
from stageline.database import connect
from stageline.errors import StagelineError
from stageline.progress import log

Connection = psycopg.Connection[Any]

#: Gives the instant; tests have one of their own.
Clock = Callable[[], datetime]


@dataclass(frozen=True)
class Rules:
    """How messages are sent; times in seconds.

    Attributes:
        lease: How long a worker may take before another one takes over; longer than ``deadline``.
        deadline: How long the sending of one message may take.
        first_backoff, last_backoff: Wait after the first failure, which doubles with each further
            one, and where that ends; a random part of up to a half is taken off.
        patience: After how long a message that never arrived is given up.
        most: Most messages of a channel that are claimed at once.
        idle: How long to wait before looking again.
        grace: How long to wait in the end for what is being sent.
    """

    lease: float = 90.0
    deadline: float = 30.0
    first_backoff: float = 5.0
    last_backoff: float = 900.0
    patience: float = 3 * 86_400.0
    most: int = 200
    idle: float = 5.0
    grace: float = 2.0

    def backoff(self, attempts: int) -> float:
        """Seconds to wait after so many attempts."""
        longest = min(self.first_backoff * 2.0 ** min(attempts - 1, 30), self.last_backoff)
        return random.uniform(longest / 2, longest)  # noqa: S311 - no secret


USUAL = Rules()


@dataclass(frozen=True)
class State:
    """An alert, and what was told of it.

    Attributes:
        told: The last message to each channel: what, and how it went.
    """

    key: str
    criticality: Criticality
    title: str
    opened_at: datetime
    acknowledged_by: str | None
    resolved_at: datetime | None
    told: Sequence[str]


Outcome = Literal["sent", "retries", "gave up"]


def deliver(
    session: Connection,
    channel: Channel,
    rules: Rules = USUAL,
    clock: Clock = lambda: datetime.now(UTC),
) -> Counter[Outcome]:
    """Sends what is due for one channel; gives how many messages went how.

    Args:
        session: Of the jobs, in autocommit mode.
        channel: The channel.
        rules: How it is done.
        clock: Gives the instant.

    Raises:
        psycopg.OperationalError: the database went away; what was claimed will be sent again.
    """
    counts: Counter[Outcome] = Counter()
    while claimed := _claim(session, channel, rules, claimed_at := clock()):
        latest = claimed_at + timedelta(seconds=rules.lease - rules.deadline)
        for together in _groups(channel, claimed):
            # What follows one that did not get through waits with it: its turn would be no better.
            if counts["retries"] or clock() > latest:
                _hand_back(session, together, clock())
                continue
            outcome = _send_one(session, channel, together, rules, clock)
            counts[outcome] += len(together)
        if counts["retries"]:
            break
    return counts


def run(stop: threading.Event, rules: Rules = USUAL) -> None:
    """Sends what is due until ``stop`` is set; goes on when the database goes away and comes back.

    Each channel has a thread while something is sent to it, so that none waits for another one.
    What is still being sent a moment after the end is left to its lease.
    """
    threads: dict[str, threading.Thread] = {}
    trouble = ""
    while not stop.is_set():
        try:
            for channel in _due(channels()):
                if channel.name not in threads or not threads[channel.name].is_alive():
                    threads[channel.name] = threading.Thread(
                        target=_deliver_alone, args=(channel, rules), daemon=True
                    )
                    threads[channel.name].start()
            trouble = ""
        except (StagelineError, psycopg.Error) as error:
            reason = str(error) if isinstance(error, StagelineError) else None
            kind = type(error).__name__
            if trouble != (reason or kind):  # once, and not every few seconds
                log().error("notifications wait", error=kind, reason=reason)
            trouble = reason or kind
        stop.wait(rules.idle)
    ends = time.monotonic() + rules.grace
    for thread in threads.values():
        thread.join(max(ends - time.monotonic(), 0.0))


def send_test(channel: Channel, rules: Rules = USUAL) -> str:
    """Sends a message that says that it is a test; gives what the other side answered.

    Raises:
        StagelineError: it did not get through; it says why.
    """
    now = datetime.now(UTC)
    test_id = f"test-{uuid4().hex}"
    notice = Notice(
        notice_id=test_id,
        event="test",
        key=test_id,
        kind="test",
        criticality="low",
        subject="Stageline",
        title=f"This is a test of the channel {channel.name}. Nothing is wrong.",
        text="",
        numbers={},
        since=now,
        opened_at=now,
    )
    try:
        return _in_time(rules.deadline, channel, Message(test_id, [notice]))
    except RefusedError as error:
        raise StagelineError(
            f"Channel {channel.name} ({channel.kind}) refused the message: {error}."
            " Mend it there or in the channel's settings."
        ) from None
    except FailedError as error:
        raise StagelineError(
            f"Channel {channel.name} ({channel.kind}) did not take the message: {error}."
            " Try again; a worker would."
        ) from None


def retry(session: Connection, channel: str, now: datetime) -> int:
    """Makes due now what a channel has not got, of alerts that are open; gives how many messages.

    Args:
        session: Of the jobs, in autocommit mode.
        channel: Its name.
        now: When that is.
    """
    return session.execute(_RETRY, {"channel": channel, "now": now}).rowcount


def states(session: Connection, *, with_resolved: int = 0) -> list[State]:
    """Open alerts, the most critical and oldest first, and then the latest resolved ones.

    Args:
        session: Of the jobs.
        with_resolved: How many resolved ones at most.
    """
    with session.cursor(row_factory=class_row(State)) as cursor:
        return cursor.execute(_STATES, {"resolved": with_resolved}).fetchall()


@dataclass(frozen=True)
class _Claimed:
    """A message that this worker sends now."""

    notification_id: int
    claimed_by: UUID
    batch: UUID
    attempts: int
    due_at: datetime
    notice: Notice


def _claim(session: Connection, channel: Channel, rules: Rules, now: datetime) -> list[_Claimed]:
    values = {
        "channel": channel.name,
        "now": now,
        "until": now + timedelta(seconds=rules.lease),
        "is_quiet": channel.quiet_until(now) is not None,
        "most": rules.most,
        "claim": uuid4(),
    }
    with session.cursor(row_factory=dict_row) as cursor:
        rows = cursor.execute(_CLAIM, values).fetchall()
    return [
        _Claimed(
            row["notification_id"],
            row["claimed_by"],
            row["batch"],
            row["attempts"],
            row["due_at"],
            Notice(
                notice_id=f"{row['alert_id']}-{row['event']}-{row['n']}",
                **{name: row[name] for name in _OF_ALERT},
            ),
        )
        for row in sorted(rows, key=lambda row: row["notification_id"])
    ]


#: Fields of a notice that come from the alert as they are.
_OF_ALERT = (
    "event",
    "key",
    "kind",
    "criticality",
    "subject",
    "title",
    "text",
    "numbers",
    "since",
    "opened_at",
    "acknowledged_by",
    "resolved_at",
)


def _groups(channel: Channel, claimed: Sequence[_Claimed]) -> list[list[_Claimed]]:
    """What goes out together."""
    if isinstance(channel, PagerDuty):
        return [[one] for one in claimed]
    if isinstance(channel, Webhook):
        # A program knows a repetition by its id, so what may have arrived under one stays together.
        batches: dict[UUID, list[_Claimed]] = {}
        for one in claimed:
            batches.setdefault(one.batch, []).append(one)
        return list(batches.values())
    return [list(claimed)]


def _message(channel: Channel, together: Sequence[_Claimed]) -> Message:
    """The message; of each alert it tells what happened last."""
    last: dict[str, Notice] = {}
    for one in together:
        before = last.pop(one.notice.opening, None)
        # Whoever has not heard of an alert hears first that it was opened.
        keeps = before is not None and before.event == "opened" and one.notice.event != "resolved"
        last[one.notice.opening] = before if keeps and before else one.notice
    ids = ",".join(str(one.notification_id) for one in together)
    # A batch is made once, so this is the same in another attempt, and in no other database.
    identity = f"{channel.name}|{together[0].batch}|{ids}"
    return Message(f"stageline-{sha256(identity.encode()).hexdigest()[:32]}", list(last.values()))


def _send_one(
    session: Connection,
    channel: Channel,
    together: Sequence[_Claimed],
    rules: Rules,
    clock: Clock,
) -> Outcome:
    started = time.monotonic()
    attempt = max(one.attempts for one in together)
    reason: str | None = None
    wait = 0.0
    outcome: Outcome = "sent"
    try:
        reason = _in_time(rules.deadline, channel, _message(channel, together))
    except RefusedError as error:
        outcome, reason = "gave up", str(error)
    except (ApiError, StagelineError) as error:
        outcome, reason = "retries", str(error)
        after = error.after if isinstance(error, FailedError) else None
        wait = max(rules.backoff(attempt), min(after or 0.0, rules.patience))
    now = clock()
    if outcome == "retries" and now - together[0].due_at > timedelta(seconds=rules.patience):
        outcome = "gave up"
    _note(session, together, outcome, reason, now, wait)
    tell = log().info if outcome == "sent" else log().warning
    tell = log().error if outcome == "gave up" else tell
    tell(
        "notification",
        channel=channel.name,
        kind=channel.kind,
        outcome=outcome,
        alerts=len({one.notice.opening for one in together}),
        attempt=attempt,
        reason=reason,
        retry_in_seconds=round(wait, 1) if outcome == "retries" else None,
        seconds=round(time.monotonic() - started, 3),
    )
    return outcome


def _in_time(seconds: float, channel: Channel, message: Message) -> str:
    """Sends, but does not wait longer than that: libraries know no limit for all of it."""
    answers: list[str] = []
    errors: list[ApiError | StagelineError] = []

    def work() -> None:
        try:
            answers.append(send(channel, message))
        except (ApiError, StagelineError) as error:
            errors.append(error)
        except Exception as error:  # noqa: BLE001 - its words may hold what was to be sent
            errors.append(FailedError(f"it could not be sent ({type(error).__name__})"))

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(seconds)
    if errors:
        raise errors[0]
    if not answers:
        raise FailedError(f"not done after {seconds:g} s")
    return answers[0]


def _note(
    session: Connection,
    together: Sequence[_Claimed],
    outcome: Outcome,
    reason: str | None,
    now: datetime,
    wait: float,
) -> None:
    session.execute(
        _NOTE,
        {
            "ids": [one.notification_id for one in together],
            "claim": together[0].claimed_by,
            "outcome": outcome,
            "now": now,
            "next": now + timedelta(seconds=wait),
            "reason": None if outcome == "sent" else reason,
        },
    )


def _hand_back(session: Connection, together: Sequence[_Claimed], now: datetime) -> None:
    session.execute(
        _HAND_BACK,
        {
            "ids": [one.notification_id for one in together],
            "claim": together[0].claimed_by,
            "now": now,
        },
    )


def _due(configured: Iterable[Channel]) -> list[Channel]:
    """Channels for which there may be something to send."""
    by_name = {channel.name: channel for channel in configured}
    if not by_name:
        return []
    with connect("jobs", autocommit=True) as session:
        rows = session.execute(_DUE, [list(by_name), datetime.now(UTC)])
        return [by_name[name] for (name,) in rows]


def _deliver_alone(channel: Channel, rules: Rules) -> None:
    try:
        with connect("jobs", autocommit=True) as session:
            deliver(session, channel, rules)
    except Exception as error:  # noqa: BLE001 - what was claimed comes back when its lease ends
        log().error("notifications wait", channel=channel.name, error=type(error).__name__)


_DUE = """
select distinct channel
from ops.notifications
where channel = any(%s) and coalesce(claimed_until, next_at) <= %s and next_at is not null
"""

# While a message waits for its next attempt, or is on its way, all others of its channel do, too.
_CLAIM = """
with chosen as (
    select waiting.notification_id
    from ops.notifications as waiting
    inner join ops.alerts on waiting.alert_id = alerts.alert_id
    where
        waiting.channel = %(channel)s
        and waiting.next_at is not null
        and coalesce(waiting.claimed_until, waiting.next_at) <= %(now)s
        and (not %(is_quiet)s or alerts.criticality = 'critical')
        and not exists (
            select from ops.notifications as tried
            where
                tried.channel = %(channel)s
                and tried.next_at is not null
                and tried.attempts > 0
                and coalesce(tried.claimed_until, tried.next_at) > %(now)s
        )
    order by waiting.notification_id
    limit %(most)s
    for update of waiting skip locked
)

update ops.notifications as mine
set
    attempts = mine.attempts + 1,
    batch = coalesce(mine.batch, %(claim)s),
    claimed_by = %(claim)s,
    claimed_until = %(until)s
from chosen, ops.alerts
where mine.notification_id = chosen.notification_id and mine.alert_id = alerts.alert_id
returning
    mine.notification_id,
    mine.claimed_by,
    mine.batch,
    mine.attempts,
    mine.due_at,
    mine.alert_id,
    mine.event,
    mine.n,
    alerts.alert_key as key,
    alerts.kind,
    alerts.criticality,
    alerts.subject,
    alerts.title,
    alerts.text,
    alerts.numbers,
    alerts.since,
    alerts.opened_at,
    alerts.acknowledged_by,
    alerts.resolved_at
"""

# Does nothing where the claim has passed to another worker.
_NOTE = """
update ops.notifications
set
    claimed_by = null,
    claimed_until = null,
    sent_at = case %(outcome)s when 'sent' then %(now)s end,
    gave_up_at = case %(outcome)s when 'gave up' then %(now)s end,
    next_at = case %(outcome)s when 'retries' then %(next)s end,
    last_error = %(reason)s
where notification_id = any(%(ids)s) and claimed_by = %(claim)s
"""

_HAND_BACK = """
update ops.notifications
set
    claimed_by = null,
    claimed_until = null,
    attempts = attempts - 1,
    next_at = %(now)s,
    batch = case attempts when 1 then null else batch end
where notification_id = any(%(ids)s) and claimed_by = %(claim)s
"""

_RETRY = """
update ops.notifications as mine
set next_at = %(now)s, due_at = %(now)s, gave_up_at = null, attempts = least(mine.attempts, 1)
from ops.alerts
where
    mine.alert_id = alerts.alert_id
    and alerts.resolved_at is null
    and mine.channel = %(channel)s
    and mine.sent_at is null
    and mine.claimed_until is null
"""

_STATES = """
with chosen as (
    (select * from ops.alerts where resolved_at is null)
    union all
    (
        select * from ops.alerts
        where resolved_at is not null
        order by resolved_at desc
        limit %(resolved)s
    )
)

select
    chosen.alert_key as key,
    chosen.criticality,
    chosen.title,
    chosen.opened_at,
    chosen.acknowledged_by,
    chosen.resolved_at,
    array(
        select
            format(
                '%%s: %%s %%s',
                last.channel,
                last.event || case when last.n > 1 then format(' %%s', last.n) else '' end,
                case
                    when last.sent_at is not null
                        then to_char(last.sent_at at time zone 'UTC', '"sent" YYYY-MM-DD HH24:MI')
                    when last.gave_up_at is not null then 'given up: ' || last.last_error
                    when last.claimed_until is not null then 'is being sent'
                    else
                        to_char(last.next_at at time zone 'UTC', '"due" YYYY-MM-DD HH24:MI')
                        || coalesce(' after: ' || last.last_error, '')
                end
            )
        from (
            select distinct on (channel) *
            from ops.notifications
            where notifications.alert_id = chosen.alert_id
            order by channel, notification_id desc
        ) as last
        order by last.channel
    ) as told
from chosen
order by
    chosen.resolved_at is not null,
    array_position('{critical,high,medium,low}'::text[], chosen.criticality),
    chosen.opened_at
"""
