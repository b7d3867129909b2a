"""Of which server the transactions are that follow-up work is planned by.

A dump that is restored elsewhere brings them along; what lands there has earlier ones.
"""

from alembic import op

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None

UP = """
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
"""


def upgrade() -> None:
    op.get_bind().exec_driver_sql(UP, execution_options={"no_parameters": True})


def downgrade() -> None:
    op.get_bind().exec_driver_sql(DOWN, execution_options={"no_parameters": True})
