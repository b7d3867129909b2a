"""The book of backups; and of which server the transactions are that follow-up work is planned by.

A dump that is restored elsewhere brings them along; what lands there has earlier ones.
"""

from alembic import op

revision = "0025"
down_revision = "0024"
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

alter table ops.follow_up_position
    add column planned_at timestamptz not null default now(),
    add column server text not null default '';
update ops.follow_up_position
set
    server = system_identifier::text,
    planned_at = case when planned::text = '1:1:' then '-infinity' else planned_at end
from pg_control_system();
comment on column ops.follow_up_position.planned_at is 'When that was.';
comment on column ops.follow_up_position.server is
    'System identifier of the server that the snapshot is of; on another one planned_at counts.';
"""

DOWN = """
alter table ops.follow_up_position drop column server, drop column planned_at;
drop table ops.backups;
"""


def upgrade() -> None:
    op.get_bind().exec_driver_sql(UP, execution_options={"no_parameters": True})


def downgrade() -> None:
    op.get_bind().exec_driver_sql(DOWN, execution_options={"no_parameters": True})
