"""The book of backups."""

from alembic import op

revision = "0023"
down_revision = "0022"
branch_labels = None
depends_on = None

UP = """
create table ops.backups (
    backup_id uuid primary key default gen_random_uuid(),
    file text not null,
    started_at timestamptz not null,
    finished_at timestamptz not null default now(),
    dump_bytes bigint,
    error text,
    constraint backups_end check ((dump_bytes is null) = (error is not null))
);
comment on table ops.backups is 'One row per backup that ended, by hand or by the clock.';
comment on column ops.backups.file is 'Where it was written; it may have been removed since.';
comment on column ops.backups.dump_bytes is 'Size of what it holds; null if it failed.';
comment on column ops.backups.error is 'Why it failed; null if it is good. One line.';
create index backups_started on ops.backups (started_at desc);
"""

DOWN = """
drop table ops.backups;
"""


def upgrade() -> None:
    op.get_bind().exec_driver_sql(UP, execution_options={"no_parameters": True})


def downgrade() -> None:
    op.get_bind().exec_driver_sql(DOWN, execution_options={"no_parameters": True})
