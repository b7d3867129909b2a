"""Alerts that are open or were, and the messages about them that are to be sent."""

from alembic import op

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None

UP = """
create table ops.alerts (
    alert_id bigint generated always as identity primary key,
    alert_key text not null,
    kind text not null,
    criticality text not null check (criticality in ('critical', 'high', 'medium', 'low')),
    subject text not null,
    title text not null,
    text text not null,
    numbers jsonb not null,
    channels text[],
    since timestamptz not null,
    opened_at timestamptz not null,
    last_seen_at timestamptz not null,
    acknowledged_at timestamptz,
    acknowledged_by text,
    resolved_at timestamptz,
    constraint alerts_acknowledged check ((acknowledged_at is null) = (acknowledged_by is null))
);
comment on table ops.alerts is 'One row per alert and opening of it.';
comment on column ops.alerts.alert_key is 'The same for the same thing about the same subject.';
comment on column ops.alerts.kind is 'Which source found it.';
comment on column ops.alerts.numbers is 'Figures by name, as when it was last seen.';
comment on column ops.alerts.channels is 'The only ones that it goes to; null: all that take it.';
comment on column ops.alerts.since is 'Since when it holds, as its source says.';
comment on column ops.alerts.opened_at is 'When it was seen first.';
create unique index alerts_open on ops.alerts (alert_key) where resolved_at is null;
create index alerts_opened on ops.alerts (opened_at desc);

create table ops.notifications (
    notification_id bigint generated always as identity primary key,
    channel text not null,
    alert_id bigint not null references ops.alerts (alert_id) on delete cascade,
    event text not null check (event in ('opened', 'reminder', 'escalated', 'resolved')),
    n integer not null default 1,
    due_at timestamptz not null,
    next_at timestamptz,
    attempts integer not null default 0,
    batch uuid,
    claimed_by uuid,
    claimed_until timestamptz,
    sent_at timestamptz,
    gave_up_at timestamptz,
    last_error text,
    unique (channel, alert_id, event, n),
    constraint notifications_claim check ((claimed_by is null) = (claimed_until is null)),
    constraint notifications_next check (
        (next_at is null) = (sent_at is not null or gave_up_at is not null)
    )
);
comment on table ops.notifications is
    'One row per message to a channel about an alert, written with the change that it tells.';
comment on column ops.notifications.n is 'Which of this event, from 1.';
comment on column ops.notifications.due_at is 'When it was to go out, after quiet hours.';
comment on column ops.notifications.next_at is 'When it is tried next; null once it is over.';
comment on column ops.notifications.attempts is 'Attempts that began; each may have arrived.';
comment on column ops.notifications.batch is 'The first attempt that it was part of.';
comment on column ops.notifications.claimed_by is 'The attempt that is under way.';
comment on column ops.notifications.last_error is 'Why the last attempt failed.';
create index notifications_pending on ops.notifications (channel, next_at)
    where next_at is not null;
create index notifications_alert on ops.notifications (alert_id);
"""

DOWN = """
drop table ops.notifications;
drop table ops.alerts;
"""


def upgrade() -> None:
    op.get_bind().exec_driver_sql(UP, execution_options={"no_parameters": True})


def downgrade() -> None:
    op.get_bind().exec_driver_sql(DOWN, execution_options={"no_parameters": True})
