"""Tasks of the worker's clock that failed, for an alert."""

from alembic import op

revision = "0026"
down_revision = "0025"
branch_labels = None
depends_on = None

UP = """
create table ops.failed_tasks (
    task text primary key,
    failed_at timestamptz not null default now(),
    error text not null
);
comment on table ops.failed_tasks is
    'One row per task of the clock, of those that run rarely, that failed when it ran last.';
comment on column ops.failed_tasks.error is 'Why, one line.';
"""

DOWN = """
drop table ops.failed_tasks;
"""


def upgrade() -> None:
    op.execute(UP)


def downgrade() -> None:
    op.execute(DOWN)
