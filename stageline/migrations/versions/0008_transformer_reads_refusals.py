"""Models count refused requests: when, whose, why; who knocked and what was said stays hidden.

Refusals carry the transaction that wrote them, as all else that lands does, so that a build finds
those that are new. What was there before carries none: the first build reads everything.
"""

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

UP = """
alter table raw.refusals add column written_xid xid8;
alter table raw.refusals alter column written_xid set default pg_current_xact_id();
comment on column raw.refusals.written_xid is
    'Transaction that wrote it; null where that was before this was kept.';
create index refusals_written on raw.refusals (written_xid);
grant select (refusal_id, refused_at, sender, project_id, reason, written_xid)
    on raw.refusals to stageline_transformer;
"""

DOWN = """
revoke select (refusal_id, refused_at, sender, project_id, reason, written_xid)
    on raw.refusals from stageline_transformer;
alter table raw.refusals drop column written_xid;
"""


def upgrade() -> None:
    op.get_bind().exec_driver_sql(UP, execution_options={"no_parameters": True})


def downgrade() -> None:
    op.get_bind().exec_driver_sql(DOWN, execution_options={"no_parameters": True})
