"""Alerts: conditions that hold are opened once, kept, and resolved; and who is to be told of it.

What is to be told is written in the transaction that changes the alert (an outbox), so it is
neither lost nor written twice, whatever dies in between; `jobs.notifications` sends it.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import psycopg
from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from jobs.channels import CRITICALITIES, Channel, Criticality, Kind
from stageline.errors import StagelineError, nearest

Connection = psycopg.Connection[Any]

#: Number of the advisory lock under which alerts are opened and resolved.
_LOCK = 7_226_019


@dataclass(frozen=True)
class Condition:
    """Something that holds now and that somebody is to know of.

    Attributes:
        key: The same for the same thing about the same subject, over all kinds.
        criticality: How bad it is.
        subject: What or whom it is about.
        title: What is the matter, one line.
        text: More of it, for people; lines are separated by newlines. May be empty.
        numbers: Figures by name.
        since: Since when it holds, where its source knows. With another instant than before it is
            another occurrence: the one before is resolved.
        channels: The only channels that it is for; None, or none of those that are there: all that
            take it.
    """

    key: str
    criticality: Criticality
    subject: str
    title: str
    text: str = ""
    numbers: Mapping[str, float | int] = field(default_factory=dict)
    since: datetime | None = None
    channels: Sequence[str] | None = None


@dataclass(frozen=True)
class Taken:
    """What came of taking conditions in: how many alerts were opened, resolved, and hold."""

    opened: int
    resolved: int
    hold: int


def take(
    session: Connection,
    conditions: Mapping[Kind, Sequence[Condition]],
    now: datetime,
    channels: Sequence[Channel],
) -> Taken:
    """Opens, keeps and resolves alerts, so that they are what holds now.

    Any number of workers may do so; one waits for the other. Call `lock` before the conditions are
    read, so that an older reading does not come after a newer one.

    Args:
        session: Of the jobs.
        conditions: All that holds, by kind. Alerts of a kind that is not there are left as they
            are: its source could not be read.
        now: The instant of the reading.
        channels: Those that are configured.
    """
    with session.transaction():
        session.execute("select pg_advisory_xact_lock(%s)", [_LOCK])
        known = _open_alerts(session, list(conditions))
        present = _by_key(conditions)
        gone = [
            alert
            for key, alert in known.items()
            if key not in present or _is_another_occurrence(alert, present[key][1])
        ]
        for alert in gone:
            del known[alert.alert_key]
        risen = [
            alert.alert_id
            for key, alert in known.items()
            if _rank(present[key][1].criticality) < _rank(alert.criticality)
        ]
        _resolve(session, [alert.alert_id for alert in gone], now, channels)
        names = [channel.name for channel in channels]
        _write(session, known, present, now, names)
        _tell_risen(session, risen, now, channels)
        for channel in channels:
            _tell_channel(session, channel, now)
        session.execute(_DROP_OF_GONE_CHANNELS, {"names": names, "now": now})
    return Taken(len(present) - len(known), len(gone), len(present))


def lock(session: Connection) -> bool:
    """Keeps others from taking conditions in until this transaction ends; False: somebody does."""
    row = session.execute("select pg_try_advisory_xact_lock(%s)", [_LOCK]).fetchone()
    return bool(row and row[0])


def acknowledge(session: Connection, key: str, by: str, now: datetime) -> None:
    """Notes that somebody looks after an open alert: reminders and escalation of it end.

    Args:
        session: Of the jobs.
        key: The alert's key.
        by: Who.
        now: When.

    Raises:
        StagelineError: no such alert is open.
    """
    with session.transaction():
        # A worker must not decide at the same time that nobody has acknowledged it.
        session.execute("select pg_advisory_xact_lock(%s)", [_LOCK])
        found = session.execute(_ACKNOWLEDGE, {"key": key, "by": by, "now": now}).fetchone()
        if found is None:
            rows = session.execute("select alert_key from ops.alerts where resolved_at is null")
            keys = [name for (name,) in rows]
            hint = nearest(key, keys) if keys else "None is open."
            raise StagelineError(f"No alert {key!r} is open. {hint}")
        session.execute(
            "delete from ops.notifications where alert_id = %s and attempts = 0"
            " and event in ('reminder', 'escalated')",
            found,
        )


@dataclass(frozen=True)
class _Open:
    alert_id: int
    alert_key: str
    criticality: Criticality
    since: datetime


def _open_alerts(session: Connection, kinds: list[Kind]) -> dict[str, _Open]:
    with session.cursor(row_factory=class_row(_Open)) as cursor:
        cursor.execute(
            "select alert_id, alert_key, criticality, since from ops.alerts"
            " where resolved_at is null and kind = any(%s)",
            [kinds],
        )
        return {alert.alert_key: alert for alert in cursor}


def _by_key(
    conditions: Mapping[Kind, Iterable[Condition]],
) -> dict[str, tuple[Kind, Condition]]:
    """Each condition once; where a key comes twice, the more critical one."""
    found: dict[str, tuple[Kind, Condition]] = {}
    for kind, of_kind in conditions.items():
        for condition in of_kind:
            other = found.get(condition.key)
            if other is None or _rank(condition.criticality) < _rank(other[1].criticality):
                found[condition.key] = (kind, condition)
    return found


def _rank(criticality: Criticality) -> int:
    return CRITICALITIES.index(criticality)


def _is_another_occurrence(alert: _Open, condition: Condition) -> bool:
    return condition.since is not None and condition.since != alert.since


def _write(
    session: Connection,
    known: Mapping[str, _Open],
    present: Mapping[str, tuple[Kind, Condition]],
    now: datetime,
    names: Sequence[str],
) -> None:
    rows = [
        {
            "key": key,
            "kind": kind,
            "criticality": condition.criticality,
            "subject": condition.subject,
            "title": condition.title,
            "text": condition.text,
            "numbers": Jsonb(dict(condition.numbers)),
            "channels": [name for name in condition.channels or () if name in names] or None,
            "since": condition.since or now,
            "now": now,
        }
        for key, (kind, condition) in present.items()
    ]
    with session.cursor() as cursor:
        cursor.executemany(_KEEP, [row for row in rows if row["key"] in known])
        cursor.executemany(_OPEN, [row for row in rows if row["key"] not in known])


def _resolve(
    session: Connection, alerts: list[int], now: datetime, channels: Sequence[Channel]
) -> None:
    if not alerts:
        return
    session.execute(
        "update ops.alerts set resolved_at = %s where alert_id = any(%s)", [now, alerts]
    )
    # What nobody has heard of, nobody has to hear is over.
    session.execute(
        "delete from ops.notifications where alert_id = any(%s) and attempts = 0", [alerts]
    )
    for channel in channels:
        session.execute(_TELL_RESOLVED, {"alerts": alerts, **_when(channel, now)})


def _tell_risen(
    session: Connection, alerts: list[int], now: datetime, channels: Sequence[Channel]
) -> None:
    """Tells channels that know of alerts that these are worse now, and does not wait to tell it."""
    if not alerts:
        return
    # What was acknowledged was less than this.
    session.execute(
        "update ops.alerts set acknowledged_at = null, acknowledged_by = null"
        " where alert_id = any(%s)",
        [alerts],
    )
    for channel in channels:
        values = {"alerts": alerts, **_when(channel, now)}
        session.execute(_TELL_RISEN, values)
        session.execute(_HURRY, values)


def _tell_channel(session: Connection, channel: Channel, now: datetime) -> None:
    when = _when(channel, now)
    session.execute(_TELL_OPENED, {"takes": channel.takes, "kinds": channel.kinds, **when})
    if channel.escalate is not None:
        for name in channel.escalate.to:
            session.execute(
                _ESCALATE,
                {"now": now, "channel": channel.name, "to": name, "after": channel.escalate.after},
            )
    if channel.remind_every is not None:
        session.execute(_REMIND, {"every": channel.remind_every, **when})


def _when(channel: Channel, now: datetime) -> dict[str, object]:
    """What the statements need to say when a message of a channel goes out."""
    return {"channel": channel.name, "now": now, "quiet": channel.quiet_until(now) or now}


_OPEN = """
insert into ops.alerts (
    alert_key, kind, criticality, subject, title, text, numbers, channels,
    since, opened_at, last_seen_at
)
values (
    %(key)s, %(kind)s, %(criticality)s, %(subject)s, %(title)s, %(text)s, %(numbers)s, %(channels)s,
    %(since)s, %(now)s, %(now)s
)
"""

_KEEP = """
update ops.alerts
set
    criticality = %(criticality)s,
    subject = %(subject)s,
    title = %(title)s,
    text = %(text)s,
    numbers = %(numbers)s,
    channels = %(channels)s,
    last_seen_at = %(now)s
where alert_key = %(key)s and resolved_at is null
"""

_TELL_OPENED = """
insert into ops.notifications (channel, alert_id, event, due_at, next_at)
select
    %(channel)s,
    alert_id,
    'opened',
    case criticality when 'critical' then %(now)s else %(quiet)s end,
    case criticality when 'critical' then %(now)s else %(quiet)s end
from ops.alerts
where
    resolved_at is null
    and acknowledged_at is null
    and criticality = any(%(takes)s)
    and (%(kinds)s::text[] is null or kind = any(%(kinds)s))
    and (channels is null or %(channel)s = any(channels))
    and not exists (
        select from ops.notifications as told
        where told.alert_id = alerts.alert_id and told.channel = %(channel)s
    )
order by alert_id
"""

_TELL_RISEN = """
insert into ops.notifications (channel, alert_id, event, n, due_at, next_at)
select
    %(channel)s,
    alerts.alert_id,
    'escalated',
    1 + coalesce(max(told.n) filter (where told.event = 'escalated'), 0),
    case alerts.criticality when 'critical' then %(now)s else %(quiet)s end,
    case alerts.criticality when 'critical' then %(now)s else %(quiet)s end
from ops.alerts
inner join ops.notifications as told on alerts.alert_id = told.alert_id
where alerts.alert_id = any(%(alerts)s) and told.channel = %(channel)s
group by alerts.alert_id
having bool_or(told.attempts > 0)
"""

_HURRY = """
update ops.notifications as waiting
set due_at = %(now)s, next_at = %(now)s
from ops.alerts
where
    waiting.alert_id = alerts.alert_id
    and alerts.alert_id = any(%(alerts)s)
    and alerts.criticality = 'critical'
    and waiting.channel = %(channel)s
    and waiting.attempts = 0
    and waiting.next_at > %(now)s
"""

# It is for channels that nobody would have looked at otherwise: their own quiet hours count when it
# is sent.
_ESCALATE = """
insert into ops.notifications (channel, alert_id, event, due_at, next_at)
select %(to)s, alerts.alert_id, 'escalated', %(now)s, %(now)s
from ops.alerts
inner join ops.notifications as told on alerts.alert_id = told.alert_id
where
    alerts.resolved_at is null
    and alerts.acknowledged_at is null
    and told.channel = %(channel)s
    and told.event in ('opened', 'escalated')
    and told.n = 1
    and not exists (
        select from ops.notifications as already
        where already.alert_id = alerts.alert_id and already.channel = %(to)s
    )
group by alerts.alert_id
having min(told.due_at) + %(after)s <= %(now)s
"""

_REMIND = """
insert into ops.notifications (channel, alert_id, event, n, due_at, next_at)
select
    %(channel)s,
    alerts.alert_id,
    'reminder',
    1 + coalesce(max(told.n) filter (where told.event = 'reminder'), 0),
    case alerts.criticality when 'critical' then %(now)s else %(quiet)s end,
    case alerts.criticality when 'critical' then %(now)s else %(quiet)s end
from ops.alerts
inner join ops.notifications as told on alerts.alert_id = told.alert_id
where
    alerts.resolved_at is null
    and alerts.acknowledged_at is null
    and told.channel = %(channel)s
group by alerts.alert_id
having
    bool_and(told.next_at is null)
    and max(coalesce(told.sent_at, told.gave_up_at)) + %(every)s <= %(now)s
"""

# An attempt may have arrived, so where there was one, it is told that it is over.
_TELL_RESOLVED = """
insert into ops.notifications (channel, alert_id, event, due_at, next_at)
select
    %(channel)s,
    alerts.alert_id,
    'resolved',
    case alerts.criticality when 'critical' then %(now)s else %(quiet)s end,
    case alerts.criticality when 'critical' then %(now)s else %(quiet)s end
from ops.alerts
inner join ops.notifications as told on alerts.alert_id = told.alert_id
where alerts.alert_id = any(%(alerts)s) and told.channel = %(channel)s
group by alerts.alert_id
having bool_or(told.gave_up_at is null)
"""

_DROP_OF_GONE_CHANNELS = """
delete from ops.notifications
where
    next_at is not null
    and channel != all(%(names)s)
    and coalesce(claimed_until <= %(now)s, true)
"""

_ACKNOWLEDGE = """
update ops.alerts
set acknowledged_at = %(now)s, acknowledged_by = %(by)s
where alert_key = %(key)s and resolved_at is null
returning alert_id
"""
