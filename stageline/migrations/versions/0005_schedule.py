"""The slots of periodic tasks, as PgQueuer 1.6 keeps them; a test compares the two.

Of its tables this one alone: its queue is not used, and would notify on every change.
"""

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

UP = """
create type ops.pgqueuer_status as enum (
    'queued', 'picked', 'successful', 'exception', 'canceled', 'deleted', 'failed'
);

create table ops.pgqueuer_schedules (
    id bigint generated always as identity primary key,
    expression text not null,
    entrypoint text not null,
    heartbeat timestamptz not null default now(),
    created timestamptz not null default now(),
    updated timestamptz not null default now(),
    next_run timestamptz not null default now(),
    last_run timestamptz,
    status ops.pgqueuer_status default 'queued',
    unique (entrypoint, expression)
);
comment on table ops.pgqueuer_schedules is
    'One row per periodic task: when it runs next, and whether a worker is running it.';
comment on column ops.pgqueuer_schedules.expression is 'Its cron line.';
comment on column ops.pgqueuer_schedules.entrypoint is 'Its name.';
comment on column ops.pgqueuer_schedules.heartbeat is
    'Last sign of life of the worker that runs it; after 30 seconds another one takes over.';
comment on column ops.pgqueuer_schedules.status is 'queued = waits for next_run, picked = runs.';
"""

DOWN = """
drop table ops.pgqueuer_schedules;
drop type ops.pgqueuer_status;
"""


def upgrade() -> None:
    op.get_bind().exec_driver_sql(UP, execution_options={"no_parameters": True})


def downgrade() -> None:
    op.get_bind().exec_driver_sql(DOWN, execution_options={"no_parameters": True})
