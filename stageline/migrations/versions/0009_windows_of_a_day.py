"""A weekday has three windows at most: no more fit into a day of the working calendar.

It holds eight stretches a UTC day, which is a part of two local days and of the night before.
"""

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

UP = """
create function settings.limit_windows() returns trigger
language plpgsql
set search_path = pg_catalog
as $$
begin
    -- One after the other, so that two transactions do not add the third window each.
    perform 1 from settings.calendars where calendar_id = new.calendar_id for no key update;
    if (
        select count(*) from settings.calendar_windows
        where calendar_id = new.calendar_id and weekday = new.weekday
    ) > 3 then
        raise exception 'weekday % of calendar % has more than three windows',
            new.weekday, new.calendar_id
            using
                errcode = 'check_violation',
                schema = tg_table_schema, table = tg_table_name, constraint = tg_name;
    end if;
    return null;
end
$$;
comment on function settings.limit_windows() is
    'Refuses a fourth window of a weekday: the working calendar has no room for it.';
create trigger calendar_windows_three after insert or update on settings.calendar_windows
    for each row execute function settings.limit_windows();
"""

DOWN = """
drop trigger calendar_windows_three on settings.calendar_windows;
drop function settings.limit_windows();
"""


def upgrade() -> None:
    op.get_bind().exec_driver_sql(UP, execution_options={"no_parameters": True})


def downgrade() -> None:
    op.get_bind().exec_driver_sql(DOWN, execution_options={"no_parameters": True})
