"""What Salesforce answers: opportunities with their history, stages, leads, activities, cases.

Columns and types are those of ``loaders/salesforce_tables.py`` as it was when this revision was
made; a test compares the two. Rows that flow models read carry the transaction that wrote them. The
loader may replace the token of an account: where refresh tokens rotate, each is worth one use.
"""

from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

UP = """
grant update (token_encrypted, updated_at) on settings.api_accounts to stageline_loader;

create schema raw_salesforce authorization stageline_loader;
create schema raw_salesforce_staging authorization stageline_loader;

set local role stageline_loader;
comment on schema raw_salesforce is 'What Salesforce answered.';
comment on schema raw_salesforce_staging is 'Scratch tables of a load in progress.';
grant usage on schema raw_salesforce to stageline_transformer;
alter default privileges in schema raw_salesforce grant select on tables to stageline_transformer;

create function raw_salesforce.stamp_change() returns trigger
language plpgsql
set search_path = pg_catalog
as $$
begin
    new.loaded_xid := pg_current_xact_id();
    return new;
end
$$;
comment on function raw_salesforce.stamp_change() is 'Notes which transaction changed a row.';

create table raw_salesforce.opportunities (
    project_id text not null,
    opportunity_id text not null,
    name text,
    account_id text,
    account_name text,
    record_type_id text,
    campaign_id text,
    stage_name text,
    opportunity_type text,
    lead_source text,
    next_step text,
    forecast_category text,
    forecast_category_name text,
    currency text,
    amount numeric,
    expected_revenue numeric,
    probability numeric,
    is_closed boolean,
    is_won boolean,
    has_line_items boolean,
    close_date date,
    last_activity_date date,
    last_stage_change_at timestamptz,
    owner_id text,
    is_deleted boolean,
    created_at timestamptz,
    modified_at timestamptz,
    system_modified_at timestamptz,
    custom_fields text,
    is_gone boolean not null default false,
    gone_seen_at timestamptz,
    unreadable text,
    fetched_at timestamptz not null,
    loaded_xid xid8 not null default pg_current_xact_id(),
    _dlt_load_id text,
    _dlt_id text
);
comment on table raw_salesforce.opportunities is
    'One row per opportunity, as it was when last asked for.';
comment on column raw_salesforce.opportunities.is_gone is
    'Whether Salesforce no longer lists it.';
create unique index opportunities_key
    on raw_salesforce.opportunities (project_id, opportunity_id);
create index opportunities_loaded on raw_salesforce.opportunities (loaded_xid);
create trigger stamp_change before update on raw_salesforce.opportunities
    for each row execute function raw_salesforce.stamp_change();

create table raw_salesforce.opportunity_history (
    project_id text not null,
    history_id text not null,
    opportunity_id text,
    created_by_id text,
    stage_name text,
    forecast_category text,
    currency text,
    amount numeric,
    expected_revenue numeric,
    probability numeric,
    previous_amount numeric,
    close_date date,
    previous_close_date date,
    is_deleted boolean,
    created_at timestamptz,
    system_modified_at timestamptz,
    unreadable text,
    fetched_at timestamptz not null,
    loaded_xid xid8 not null default pg_current_xact_id(),
    _dlt_load_id text,
    _dlt_id text
);
comment on table raw_salesforce.opportunity_history is
    'One row per change of amount, probability, stage or close date, as it was after it.';
create unique index opportunity_history_key
    on raw_salesforce.opportunity_history (project_id, history_id);
create index opportunity_history_loaded on raw_salesforce.opportunity_history (loaded_xid);
create trigger stamp_change before update on raw_salesforce.opportunity_history
    for each row execute function raw_salesforce.stamp_change();
create index opportunity_history_opportunity
    on raw_salesforce.opportunity_history (project_id, opportunity_id);

create table raw_salesforce.opportunity_field_history (
    project_id text not null,
    history_id text not null,
    opportunity_id text,
    created_by_id text,
    field text,
    data_type text,
    old_value text,
    new_value text,
    is_deleted boolean,
    created_at timestamptz,
    unreadable text,
    fetched_at timestamptz not null,
    loaded_xid xid8 not null default pg_current_xact_id(),
    _dlt_load_id text,
    _dlt_id text
);
comment on table raw_salesforce.opportunity_field_history is
    'One row per change of a field that the organisation tracks.';
create unique index opportunity_field_history_key
    on raw_salesforce.opportunity_field_history (project_id, history_id);
create index opportunity_field_history_loaded
    on raw_salesforce.opportunity_field_history (loaded_xid);
create trigger stamp_change before update on raw_salesforce.opportunity_field_history
    for each row execute function raw_salesforce.stamp_change();
create index opportunity_field_history_opportunity
    on raw_salesforce.opportunity_field_history (project_id, opportunity_id);

create table raw_salesforce.stages (
    project_id text not null,
    stage_name text not null,
    stage_id text,
    label text,
    api_name text,
    description text,
    forecast_category text,
    forecast_category_name text,
    default_probability numeric,
    sort_order bigint,
    is_active boolean,
    is_closed boolean,
    is_won boolean,
    system_modified_at timestamptz,
    is_gone boolean not null default false,
    gone_seen_at timestamptz,
    unreadable text,
    fetched_at timestamptz not null,
    _dlt_load_id text,
    _dlt_id text
);
comment on table raw_salesforce.stages is
    'One row per name by which deals call a stage; a name that is no longer used stays.';
comment on column raw_salesforce.stages.is_gone is
    'Whether Salesforce no longer lists it.';
create unique index stages_key
    on raw_salesforce.stages (project_id, stage_name);

create table raw_salesforce.users (
    project_id text not null,
    user_id text not null,
    name text,
    email text,
    user_type text,
    role_id text,
    manager_id text,
    profile_id text,
    is_active boolean,
    created_at timestamptz,
    system_modified_at timestamptz,
    unreadable text,
    fetched_at timestamptz not null,
    _dlt_load_id text,
    _dlt_id text
);
comment on table raw_salesforce.users is
    'One row per user, inactive ones included.';
create unique index users_key
    on raw_salesforce.users (project_id, user_id);

create table raw_salesforce.leads (
    project_id text not null,
    lead_id text not null,
    master_record_id text,
    converted_opportunity_id text,
    converted_account_id text,
    converted_contact_id text,
    company text,
    status text,
    lead_source text,
    is_converted boolean,
    converted_date date,
    owner_id text,
    is_deleted boolean,
    created_at timestamptz,
    modified_at timestamptz,
    system_modified_at timestamptz,
    custom_fields text,
    is_gone boolean not null default false,
    gone_seen_at timestamptz,
    unreadable text,
    fetched_at timestamptz not null,
    _dlt_load_id text,
    _dlt_id text
);
comment on table raw_salesforce.leads is
    'One row per lead, as it was when last asked for.';
comment on column raw_salesforce.leads.is_gone is
    'Whether Salesforce no longer lists it.';
create unique index leads_key
    on raw_salesforce.leads (project_id, lead_id);

create table raw_salesforce.tasks (
    project_id text not null,
    task_id text not null,
    what_id text,
    who_id text,
    subject text,
    status text,
    task_type text,
    task_subtype text,
    call_disposition text,
    call_seconds bigint,
    is_closed boolean,
    is_archived boolean,
    activity_date date,
    completed_at timestamptz,
    owner_id text,
    is_deleted boolean,
    created_at timestamptz,
    modified_at timestamptz,
    system_modified_at timestamptz,
    custom_fields text,
    is_gone boolean not null default false,
    gone_seen_at timestamptz,
    unreadable text,
    fetched_at timestamptz not null,
    _dlt_load_id text,
    _dlt_id text
);
comment on table raw_salesforce.tasks is
    'One row per task, as it was when last asked for.';
comment on column raw_salesforce.tasks.is_gone is
    'Whether Salesforce no longer lists it.';
create unique index tasks_key
    on raw_salesforce.tasks (project_id, task_id);

create table raw_salesforce.events (
    project_id text not null,
    event_id text not null,
    what_id text,
    who_id text,
    subject text,
    event_type text,
    is_all_day boolean,
    is_archived boolean,
    is_group_event boolean,
    is_recurrence boolean,
    starts_at timestamptz,
    ends_at timestamptz,
    owner_id text,
    is_deleted boolean,
    created_at timestamptz,
    modified_at timestamptz,
    system_modified_at timestamptz,
    custom_fields text,
    is_gone boolean not null default false,
    gone_seen_at timestamptz,
    unreadable text,
    fetched_at timestamptz not null,
    _dlt_load_id text,
    _dlt_id text
);
comment on table raw_salesforce.events is
    'One row per event, without the copies of invitees.';
comment on column raw_salesforce.events.is_gone is
    'Whether Salesforce no longer lists it.';
create unique index events_key
    on raw_salesforce.events (project_id, event_id);

create table raw_salesforce.cases (
    project_id text not null,
    case_id text not null,
    case_number text,
    master_record_id text,
    account_id text,
    status text,
    priority text,
    origin text,
    is_closed boolean,
    is_escalated boolean,
    closed_at timestamptz,
    owner_id text,
    is_deleted boolean,
    created_at timestamptz,
    modified_at timestamptz,
    system_modified_at timestamptz,
    custom_fields text,
    is_gone boolean not null default false,
    gone_seen_at timestamptz,
    unreadable text,
    fetched_at timestamptz not null,
    _dlt_load_id text,
    _dlt_id text
);
comment on table raw_salesforce.cases is
    'One row per case, as it was when last asked for.';
comment on column raw_salesforce.cases.is_gone is
    'Whether Salesforce no longer lists it.';
create unique index cases_key
    on raw_salesforce.cases (project_id, case_id);

create table raw_salesforce.rejects (
    project_id text not null,
    reject_id text not null,
    table_name text,
    record text,
    reason text,
    unreadable text,
    fetched_at timestamptz not null,
    _dlt_load_id text,
    _dlt_id text
);
comment on table raw_salesforce.rejects is
    'One row per record that has no key.';
create unique index rejects_key
    on raw_salesforce.rejects (project_id, reject_id);
revoke select on raw_salesforce.rejects from stageline_transformer;  -- no model reads it

reset role;
"""

DOWN = """
drop schema raw_salesforce_staging, raw_salesforce cascade;
revoke update (token_encrypted, updated_at) on settings.api_accounts from stageline_loader;
"""


def upgrade() -> None:
    op.get_bind().exec_driver_sql(UP, execution_options={"no_parameters": True})


def downgrade() -> None:
    op.get_bind().exec_driver_sql(DOWN, execution_options={"no_parameters": True})
