"""Stage events out of files carry the transaction that wrote them, as those of the receiver do.

By it the flow models find the entities that changed since they were built. A load inserts rows and
updates those that differ; the loader knows nothing of the column.
"""

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

UP = """
set local role stageline_loader;

alter table raw_files.stage_events
    add column loaded_xid xid8 not null default pg_current_xact_id();
comment on column raw_files.stage_events.loaded_xid is
    'Transaction that wrote it: all rows below the xmin of a snapshot are there for good.';
create index stage_events_loaded on raw_files.stage_events (loaded_xid);

create function raw_files.stamp_change() returns trigger
language plpgsql
set search_path = pg_catalog
as $$
begin
    new.loaded_xid := pg_current_xact_id();
    return new;
end
$$;
comment on function raw_files.stamp_change() is 'Notes which transaction changed a row.';
create trigger stamp_change before update on raw_files.stage_events
    for each row execute function raw_files.stamp_change();

reset role;
"""

DOWN = """
set local role stageline_loader;
drop trigger stamp_change on raw_files.stage_events;
drop function raw_files.stamp_change();
alter table raw_files.stage_events drop column loaded_xid;
reset role;
"""


def upgrade() -> None:
    op.get_bind().exec_driver_sql(UP, execution_options={"no_parameters": True})


def downgrade() -> None:
    op.get_bind().exec_driver_sql(DOWN, execution_options={"no_parameters": True})
