"""What operators set to have flow measured and judged: maps, calendars, SLA, cycles, urgency.

Settings that judge are effective-dated: a row counts for visits that began within
[effective_from, effective_to). The database refuses two that would count at once; btree_gist is not
needed for it, since each key is a point in the range of its hashes.
"""

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_TABLES = """
create function settings.point(variadic parts text[]) returns int8range
language sql immutable parallel safe
set search_path = pg_catalog
as $$
    select int8range(hash / 2, hash / 2, '[]')
    from (
        select hashtextextended(
            string_agg(coalesce(length(part) || ':' || part, '-'), '|' order by place), 0
        ) as hash
        from unnest(parts) with ordinality as given (part, place)
    ) as hashed
$$;
comment on function settings.point(variadic text[]) is
    'A key, nulls included, as a range that overlaps no other key: for exclusion constraints.';

create table settings.report_versions (
    report_version integer primary key check (report_version > 0),
    title text not null default '',
    state text not null default 'draft' check (state in ('draft', 'published', 'retired')),
    cloned_from integer references settings.report_versions,
    created_at timestamptz not null default now(),
    published_at timestamptz,
    retired_at timestamptz,
    constraint report_versions_published
        check ((state = 'draft') = (published_at is null)),
    constraint report_versions_retired check ((state = 'retired') = (retired_at is not null))
);
comment on table settings.report_versions is
    'One row per version of the stage map; only published ones are computed.';

create table settings.stage_map_scd (
    map_id bigint generated always as identity primary key,
    report_version integer not null references settings.report_versions,
    source_system text not null,
    project_id text not null,
    pipeline_id text,
    stage_id text,
    sub_key text not null,
    effective_from timestamptz not null default '1900-01-01 00:00+00',
    effective_to timestamptz,
    change_note text,
    foreign key (source_system, project_id) references settings.projects,
    constraint stage_map_scd_valid check (effective_to > effective_from),
    constraint stage_map_scd_unambiguous exclude using gist (
        settings.point(
            report_version::text, source_system, project_id, pipeline_id, stage_id
        ) with &&,
        tstzrange(effective_from, effective_to) with &&
    )
);
comment on table settings.stage_map_scd is
    'One row per version, pipeline, stage and time: which canonical sub-stage it means.';
comment on column settings.stage_map_scd.pipeline_id is
    'Null = every pipeline; a row that names more wins: pipeline and stage, stage, pipeline.';
comment on column settings.stage_map_scd.stage_id is 'Null = every stage.';
comment on column settings.stage_map_scd.sub_key is 'Key in reference.canonical_substages.';

create table settings.stage_group_dictionary (
    source_system text not null,
    project_id text not null,
    group_id text not null,
    name text not null,
    kind text not null default 'open' check (kind in ('open', 'done', 'cancelled')),
    position integer,
    is_active boolean not null default true,
    primary key (source_system, project_id, group_id),
    foreign key (source_system, project_id) references settings.projects
);
comment on table settings.stage_group_dictionary is
    'One row per group of statuses of a project; one that vanished keeps its name.';
comment on column settings.stage_group_dictionary.kind is
    'No clock runs in groups that are done or cancelled.';
comment on column settings.stage_group_dictionary.is_active is 'Whether the CRM still has it.';

create table settings.stage_dictionary (
    source_system text not null,
    project_id text not null,
    stage_id text not null,
    pipeline_id text,
    name text not null,
    alias text,
    group_id text,
    position integer,
    is_closing boolean not null default false,
    is_active boolean not null default true,
    primary key (source_system, project_id, stage_id),
    foreign key (source_system, project_id) references settings.projects
);
comment on table settings.stage_dictionary is
    'One row per stage or status of a project; one that vanished keeps its name.';
comment on column settings.stage_dictionary.group_id is
    'Taken for events that name no group of their own; it may be in no dictionary yet.';
comment on column settings.stage_dictionary.is_closing is 'Whether the CRM closes orders with it.';
comment on column settings.stage_dictionary.is_active is 'Whether the CRM still has it.';

create table settings.calendars (
    calendar_id bigint generated always as identity primary key,
    source_system text not null,
    project_id text not null,
    group_id text,
    is_always_open boolean not null default false,
    effective_from date not null default '1900-01-01',
    effective_to date,
    note text,
    foreign key (source_system, project_id) references settings.projects,
    constraint calendars_valid check (effective_to > effective_from),
    constraint calendars_unambiguous exclude using gist (
        settings.point(source_system, project_id, group_id) with &&,
        daterange(effective_from, effective_to) with &&
    )
);
comment on table settings.calendars is
    'One row per week of working hours of a project or stage group, from a day on.';
comment on column settings.calendars.group_id is
    'Null = every group of the project without a calendar of its own.';
comment on column settings.calendars.is_always_open is '24/7; it has no windows then.';

create table settings.calendar_windows (
    calendar_id bigint not null references settings.calendars on delete cascade,
    weekday integer not null check (weekday between 1 and 7),
    opens_second integer not null check (opens_second between 0 and 86399),
    closes_second integer not null,
    primary key (calendar_id, weekday, opens_second),
    constraint calendar_windows_valid check (
        closes_second > opens_second and closes_second <= opens_second + 86400
    ),
    constraint calendar_windows_overlap exclude using gist (
        int8range(calendar_id * 8 + weekday, calendar_id * 8 + weekday, '[]') with &&,
        int4range(opens_second, closes_second) with &&
    )
);
comment on table settings.calendar_windows is
    'One row per stretch of working time of a weekday; a weekday without one is off.';
comment on column settings.calendar_windows.weekday is '1 = Monday ... 7 = Sunday.';
comment on column settings.calendar_windows.opens_second is 'Seconds of the clock since midnight.';
comment on column settings.calendar_windows.closes_second is
    'The same, excluded; 86400 is midnight, more goes on into the next day.';

create table settings.day_exceptions (
    source_system text not null,
    project_id text not null,
    day date not null,
    as_weekday integer check (as_weekday between 1 and 7),
    name text not null default '',
    primary key (source_system, project_id, day),
    foreign key (source_system, project_id) references settings.projects
);
comment on table settings.day_exceptions is
    'One row per holiday or extra working day of a project, in all its calendars.';
comment on column settings.day_exceptions.as_weekday is
    'Weekday whose windows are worked on that day; null = none, a holiday.';

create table settings.sla_stage_rules (
    sla_rule_id bigint generated always as identity primary key,
    source_system text not null,
    project_id text not null,
    group_id text not null,
    is_urgent boolean not null default false,
    limit_seconds bigint not null check (limit_seconds > 0),
    effective_from timestamptz not null default '1900-01-01 00:00+00',
    effective_to timestamptz,
    note text,
    foreign key (source_system, project_id) references settings.projects,
    constraint sla_stage_rules_valid check (effective_to > effective_from),
    constraint sla_stage_rules_unambiguous exclude using gist (
        settings.point(source_system, project_id, group_id, is_urgent::text) with &&,
        tstzrange(effective_from, effective_to) with &&
    )
);
comment on table settings.sla_stage_rules is
    'One row per stage group, urgency and time: how long an order may be there.';
comment on column settings.sla_stage_rules.is_urgent is 'Which of the two grids it belongs to.';
comment on column settings.sla_stage_rules.limit_seconds is 'Working seconds of one visit.';

create table settings.sla_thresholds (
    sla_threshold_id bigint generated always as identity primary key,
    source_system text not null,
    project_id text not null,
    near_pct numeric(5, 2) not null check (near_pct > 0 and near_pct <= 100),
    effective_from timestamptz not null default '1900-01-01 00:00+00',
    effective_to timestamptz,
    foreign key (source_system, project_id) references settings.projects,
    constraint sla_thresholds_valid check (effective_to > effective_from),
    constraint sla_thresholds_unambiguous exclude using gist (
        settings.point(source_system, project_id) with &&,
        tstzrange(effective_from, effective_to) with &&
    )
);
comment on table settings.sla_thresholds is
    'One row per project and time: from which share of its limit on a visit counts as near.';
comment on column settings.sla_thresholds.near_pct is 'Percent of the limit; 80 without a row.';

create table settings.waiting_stages (
    waiting_stage_id bigint generated always as identity primary key,
    source_system text not null,
    project_id text not null,
    stage_id text not null,
    waits_for text not null default '',
    effective_from timestamptz not null default '1900-01-01 00:00+00',
    effective_to timestamptz,
    foreign key (source_system, project_id) references settings.projects,
    constraint waiting_stages_valid check (effective_to > effective_from),
    constraint waiting_stages_unambiguous exclude using gist (
        settings.point(source_system, project_id, stage_id) with &&,
        tstzrange(effective_from, effective_to) with &&
    )
);
comment on table settings.waiting_stages is
    'One row per status in which the SLA clock pauses (for the customer, for payment).';

create table settings.urgent_rules (
    urgent_rule_id bigint generated always as identity primary key,
    source_system text not null,
    project_id text not null,
    rule_name text not null,
    match_type text not null check (match_type in ('sku', 'offer_id', 'product_id')),
    match_value text not null check (match_value <> ''),
    effective_from timestamptz not null default '1900-01-01 00:00+00',
    effective_to timestamptz,
    foreign key (source_system, project_id) references settings.projects,
    constraint urgent_rules_valid check (effective_to > effective_from),
    constraint urgent_rules_unambiguous exclude using gist (
        settings.point(source_system, project_id, match_type, match_value) with &&,
        tstzrange(effective_from, effective_to) with &&
    )
);
comment on table settings.urgent_rules is
    'One row per item that makes an order urgent, for orders that began while it is in force.';

create table settings.cycle_rules (
    cycle_rule_id bigint generated always as identity primary key,
    source_system text not null,
    project_id text not null,
    title text not null check (title <> ''),
    start_group_id text,
    start_stage_id text,
    end_group_id text,
    end_stage_id text,
    is_default boolean not null default false,
    effective_from timestamptz not null default '1900-01-01 00:00+00',
    effective_to timestamptz,
    foreign key (source_system, project_id) references settings.projects,
    constraint cycle_rules_start check (num_nonnulls(start_group_id, start_stage_id) = 1),
    constraint cycle_rules_end check (num_nonnulls(end_group_id, end_stage_id) = 1),
    constraint cycle_rules_valid check (effective_to > effective_from),
    constraint cycle_rules_unambiguous exclude using gist (
        settings.point(source_system, project_id, title) with &&,
        tstzrange(effective_from, effective_to) with &&
    ),
    constraint cycle_rules_one_default exclude using gist (
        settings.point(source_system, project_id) with &&,
        tstzrange(effective_from, effective_to) with &&
    ) where (is_default)
);
comment on table settings.cycle_rules is
    'One row per cycle of a project and time: from entering one group or status to another.';
comment on column settings.cycle_rules.is_default is
    'Whether it is the cycle to delivery that orders_current shows.';

create table settings.order_overrides (
    order_override_id bigint generated always as identity primary key,
    source_system text not null,
    project_id text not null,
    order_id text not null,
    is_urgent boolean,
    sla_profile text check (sla_profile in ('normal', 'urgent')),
    cycle_start_group_id text,
    cycle_start_stage_id text,
    cycle_end_group_id text,
    cycle_end_stage_id text,
    note text,
    effective_from timestamptz not null default '1900-01-01 00:00+00',
    effective_to timestamptz,
    foreign key (source_system, project_id) references settings.projects,
    constraint order_overrides_start
        check (num_nonnulls(cycle_start_group_id, cycle_start_stage_id) <= 1),
    constraint order_overrides_end
        check (num_nonnulls(cycle_end_group_id, cycle_end_stage_id) <= 1),
    constraint order_overrides_valid check (effective_to > effective_from),
    constraint order_overrides_unambiguous exclude using gist (
        settings.point(source_system, project_id, order_id) with &&,
        tstzrange(effective_from, effective_to) with &&
    )
);
comment on table settings.order_overrides is
    'One row per order and time that a person judged otherwise than the rules do.';
comment on column settings.order_overrides.sla_profile is
    'Grid of SLA limits, whatever the urgency shown.';

create table settings.flow_metrics (
    flow_metric_id bigint generated always as identity primary key,
    title text not null unique check (title <> ''),
    source_system text not null,
    project_id text not null,
    start_pipeline_id text,
    start_stage_id text,
    start_sub_key text,
    end_pipeline_id text,
    end_stage_id text,
    end_sub_key text,
    is_working_time boolean not null default false,
    green_limit_seconds bigint check (green_limit_seconds > 0),
    red_limit_seconds bigint,
    comment text,
    position integer,
    is_on boolean not null default true,
    foreign key (source_system, project_id) references settings.projects,
    constraint flow_metrics_start check (
        num_nonnulls(start_stage_id, start_sub_key) = 1
        and (start_pipeline_id is null or start_stage_id is not null)
    ),
    constraint flow_metrics_end check (
        num_nonnulls(end_stage_id, end_sub_key) = 1
        and (end_pipeline_id is null or end_stage_id is not null)
    ),
    constraint flow_metrics_limits check (red_limit_seconds >= green_limit_seconds)
);
comment on table settings.flow_metrics is
    'One row per metric of the user''s own: from entering one stage or sub-stage to another.';
"""

#: Tables whose changes are recorded, with the columns that are never shown.
_AUDITED = {
    "projects": (),
    "webhook_checks": ("secret_encrypted",),
    "api_accounts": ("token_encrypted",),
    "report_versions": (),
    "stage_map_scd": (),
    "stage_group_dictionary": (),
    "stage_dictionary": (),
    "calendars": (),
    "calendar_windows": (),
    "day_exceptions": (),
    "sla_stage_rules": (),
    "sla_thresholds": (),
    "waiting_stages": (),
    "urgent_rules": (),
    "cycle_rules": (),
    "order_overrides": (),
    "flow_metrics": (),
}

_AUDIT = """
create table settings.audit_log (
    audit_id bigint generated always as identity primary key,
    changed_at timestamptz not null default clock_timestamp(),
    changed_xid xid8 not null default pg_current_xact_id(),
    changed_by text not null,
    database_role text not null default session_user,
    action text not null check (action in ('insert', 'update', 'delete')),
    table_name text not null,
    before jsonb,
    after jsonb
);
comment on table settings.audit_log is
    'One row per row of settings that was added, changed or removed; written by triggers.';
comment on column settings.audit_log.changed_xid is
    'Transaction that changed it: all rows below the xmin of a snapshot are there for good.';
comment on column settings.audit_log.changed_by is
    'Who, as the command was told; the database''s role where it was not.';
comment on column settings.audit_log.before is 'The row before, without secrets; null if new.';
comment on column settings.audit_log.after is 'The row after, without secrets; null if removed.';
create index audit_log_changed on settings.audit_log (changed_xid);
create index audit_log_table on settings.audit_log (table_name, changed_at);

create function settings.record_change() returns trigger
language plpgsql security definer
set search_path = pg_catalog
as $$
declare
    was jsonb := case when tg_op <> 'INSERT' then to_jsonb(old) - coalesce(tg_argv, '{}') end;
    is_now jsonb := case when tg_op <> 'DELETE' then to_jsonb(new) - coalesce(tg_argv, '{}') end;
begin
    if tg_op = 'UPDATE' and new is not distinct from old then
        return null;
    end if;
    insert into settings.audit_log (changed_by, action, table_name, before, after)
    values (
        coalesce(nullif(current_setting('stageline.changed_by', true), ''), session_user),
        lower(tg_op), tg_table_name, was, is_now
    );
    return null;
end
$$;
comment on function settings.record_change() is
    'Writes a change into settings.audit_log; its arguments are columns that are left out.';
revoke execute on function settings.record_change() from public;
revoke insert, update, delete on settings.audit_log from public;
"""

_DROPPED = (
    "flow_metrics",
    "order_overrides",
    "cycle_rules",
    "urgent_rules",
    "waiting_stages",
    "sla_thresholds",
    "sla_stage_rules",
    "day_exceptions",
    "calendar_windows",
    "calendars",
    "stage_dictionary",
    "stage_group_dictionary",
    "stage_map_scd",
    "report_versions",
)


def _trigger(table: str, hidden: tuple[str, ...]) -> str:
    arguments = ", ".join(f"'{column}'" for column in hidden)
    return (
        f"create trigger record_change after insert or update or delete on settings.{table}"
        f" for each row execute function settings.record_change({arguments});"
    )


def upgrade() -> None:
    run = op.get_bind().exec_driver_sql
    run(_TABLES, execution_options={"no_parameters": True})
    run(_AUDIT, execution_options={"no_parameters": True})
    for table, hidden in _AUDITED.items():
        run(_trigger(table, hidden))


def downgrade() -> None:
    run = op.get_bind().exec_driver_sql
    for table in _DROPPED:
        run(f"drop table settings.{table}")
    for table in _AUDITED.keys() - set(_DROPPED):
        run(f"drop trigger record_change on settings.{table}")
    run("drop function settings.record_change()")
    run("drop table settings.audit_log")
    run("drop function settings.point(text[])")
