"""Channels that alone hear of a refresh group."""

from alembic import op

revision = "0027"
down_revision = "0026"
branch_labels = None
depends_on = None

UP = """
alter table ops.refresh_groups add column channels text[];
comment on column ops.refresh_groups.channels is
    'The channels that alone hear of it; null = all that take such alerts.';
"""

DOWN = """
alter table ops.refresh_groups drop column channels;
"""


def upgrade() -> None:
    op.execute(UP)


def downgrade() -> None:
    op.execute(DOWN)
