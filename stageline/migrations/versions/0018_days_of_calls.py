"""Tables of calls note on which days a transaction wrote calls, before and after it.

By them the models count those days anew on which something changed. A row alone tells only where it
counts now: a call that was put off counts on another day, and no more on the one before.
"""

from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None

_UP = """
set local role stageline_loader;

create table raw_files.call_days (
    written_xid xid8 not null default pg_current_xact_id(),
    source_system text not null,
    project_id text not null,
    utc_day date not null,
    primary key (written_xid, source_system, project_id, utc_day)
);
comment on table raw_files.call_days is
    'One row per transaction, project and day on which calls counted before it or count after it;'
    ' those of files and of CRMs.';
comment on column raw_files.call_days.written_xid is
    'Transaction that wrote: all rows below the xmin of a snapshot are there for good.';
comment on column raw_files.call_days.utc_day is
    'Day in UTC of an instant, or a day that the source states without a zone.';

create index activities_scheduled_day on raw_files.activities
    ((cast(scheduled_at at time zone 'UTC' as date) - date '1970-01-01'))
    where activity_type = 'call';
create index activities_completed_day on raw_files.activities
    ((cast(completed_at at time zone 'UTC' as date) - date '1970-01-01'))
    where activity_type = 'call';
create index activities_created_day on raw_files.activities
    ((cast(created_at at time zone 'UTC' as date) - date '1970-01-01'))
    where activity_type = 'call';

reset role;
"""

#: Tables that calls are read from: their source, the days of a row, and which rows may be calls.
_TABLES = (
    (
        ("raw_files", "activities"),
        "source_system",
        "(cast(scheduled_at at time zone 'UTC' as date)),"
        " (cast(completed_at at time zone 'UTC' as date))",
        "activity_type = 'call'",
    ),
    (("raw_hubspot", "calls"), "'hubspot'", "(cast(called_at at time zone 'UTC' as date))", "true"),
    (
        ("raw_pipedrive", "activities"),
        "'pipedrive'",
        "(due_date), (cast(due_at at time zone 'UTC' as date)),"
        " (cast(done_at at time zone 'UTC' as date))",
        "type = 'call'",
    ),
    (
        ("raw_salesforce", "tasks"),
        "'salesforce'",
        "(activity_date), (cast(completed_at at time zone 'UTC' as date)),"
        " (cast(created_at at time zone 'UTC' as date))",
        "true",
    ),
)

#: What each of the triggers calls `written`.
_TRIGGERS = (
    ("note_inserted_calls", "insert", "new"),
    ("note_changed_calls", "update", "new"),
    ("note_calls_before_change", "update", "old"),
    ("note_deleted_calls", "delete", "old"),
)


def _noting(table: tuple[str, str], source: str, days: str, calls: str) -> str:
    schema, name = table
    note = f"""
        insert into raw_files.call_days (source_system, project_id, utc_day)
        select distinct {source}, project_id, days.utc_day
        from written
        cross join lateral (values {days}) as days (utc_day)
        where {calls} and days.utc_day is not null
        on conflict do nothing;
    """  # noqa: S608 - made of the names above alone
    triggers = "".join(
        f"create trigger {trigger} after {event} on {schema}.{name}"
        f" referencing {rows} table as written"
        f" for each statement execute function {schema}.note_days_of_calls();"
        for trigger, event, rows in _TRIGGERS
    )
    # The rights of the owner: whoever may write calls need not write notes by hand.
    return f"""
        set local role stageline_loader;
        {note.replace("from written", f"from {schema}.{name} as written")}
        create function {schema}.note_days_of_calls() returns trigger
        language plpgsql
        security definer
        set search_path = pg_catalog
        as $$
        begin
            {note}
            return null;
        end
        $$;
        comment on function {schema}.note_days_of_calls() is
            'Notes on which days calls that are written counted before or count now.';
        {triggers}
        reset role;
    """


def upgrade() -> None:
    run = op.get_bind().exec_driver_sql
    for statements in (_UP, *(_noting(*table) for table in _TABLES)):
        run(statements, execution_options={"no_parameters": True})


def downgrade() -> None:
    run = op.get_bind().exec_driver_sql
    for (schema, name), *_ in _TABLES:
        for trigger, *_ in _TRIGGERS:
            run(f"drop trigger {trigger} on {schema}.{name}")
        run(f"drop function {schema}.note_days_of_calls()")
    for instant in ("scheduled", "completed", "created"):
        run(f"drop index raw_files.activities_{instant}_day")
    run("drop table raw_files.call_days")
