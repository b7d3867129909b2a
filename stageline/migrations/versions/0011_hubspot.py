"""What HubSpot's API gives: deals with their history, tickets, surveys and activities.

Columns and types are those of ``loaders/hubspot_tables.py`` as it was when this revision was made;
a test compares the two. What flow models are built of carries the transaction that wrote it.
"""

from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

UP = """
create schema raw_hubspot authorization stageline_loader;
create schema raw_hubspot_staging authorization stageline_loader;

set local role stageline_loader;
comment on schema raw_hubspot is 'What HubSpot answered: deals, their history, tickets.';
comment on schema raw_hubspot_staging is 'Scratch tables of a load in progress.';
grant usage on schema raw_hubspot to stageline_transformer;
alter default privileges in schema raw_hubspot grant select on tables to stageline_transformer;

create table raw_hubspot.deal_pipelines (
    project_id text not null,
    pipeline_id text not null,
    label text,
    position bigint,
    created_at timestamptz,
    updated_at timestamptz,
    is_gone boolean not null default false,
    gone_seen_at timestamptz,
    unreadable text,
    fetched_at timestamptz not null,
    _dlt_load_id text,
    _dlt_id text
);
comment on table raw_hubspot.deal_pipelines is
    'One row per pipeline of deals, also after it is deleted.';
create unique index deal_pipelines_key on raw_hubspot.deal_pipelines (project_id, pipeline_id);

create table raw_hubspot.deal_stages (
    project_id text not null,
    stage_id text not null,
    pipeline_id text,
    label text,
    position bigint,
    is_closed boolean,
    probability numeric,
    created_at timestamptz,
    updated_at timestamptz,
    is_gone boolean not null default false,
    gone_seen_at timestamptz,
    unreadable text,
    fetched_at timestamptz not null,
    _dlt_load_id text,
    _dlt_id text
);
comment on table raw_hubspot.deal_stages is
    'One row per stage of deals, also after it is deleted.';
create unique index deal_stages_key on raw_hubspot.deal_stages (project_id, stage_id);

create table raw_hubspot.owners (
    project_id text not null,
    owner_id text not null,
    user_id text,
    type text,
    email text,
    first_name text,
    last_name text,
    teams text,
    is_archived boolean,
    created_at timestamptz,
    updated_at timestamptz,
    unreadable text,
    fetched_at timestamptz not null,
    _dlt_load_id text,
    _dlt_id text
);
comment on table raw_hubspot.owners is
    'One row per owner, also of archived ones.';
create unique index owners_key on raw_hubspot.owners (project_id, owner_id);

create table raw_hubspot.deals (
    project_id text not null,
    deal_id text not null,
    name text,
    amount numeric,
    amount_in_home_currency numeric,
    currency text,
    pipeline_id text,
    stage_id text,
    stage_probability numeric,
    deal_type text,
    owner_id text,
    team_id text,
    is_closed boolean,
    is_closed_won boolean,
    is_closed_lost boolean,
    forecast_amount numeric,
    forecast_probability numeric,
    forecast_category text,
    closed_won_reason text,
    closed_lost_reason text,
    next_step text,
    merged_deal_ids text,
    close_at timestamptz,
    created_at timestamptz,
    added_at timestamptz,
    owner_assigned_at timestamptz,
    modified_at timestamptz,
    custom_fields text,
    is_gone boolean not null default false,
    gone_seen_at timestamptz,
    loaded_xid xid8 not null default pg_current_xact_id(),
    unreadable text,
    fetched_at timestamptz not null,
    _dlt_load_id text,
    _dlt_id text
);
comment on table raw_hubspot.deals is
    'One row per deal, as it was when last read.';
create unique index deals_key on raw_hubspot.deals (project_id, deal_id);

create table raw_hubspot.deal_history (
    project_id text not null,
    deal_id text not null,
    property text not null,
    changed_at timestamptz not null,
    value_mark text not null,
    value text,
    number numeric,
    instant timestamptz,
    place bigint,
    source_type text,
    source_id text,
    updated_by text,
    loaded_xid xid8 not null default pg_current_xact_id(),
    unreadable text,
    fetched_at timestamptz not null,
    _dlt_load_id text,
    _dlt_id text
);
comment on table raw_hubspot.deal_history is
    'One row per value that a property of a deal took; facts, never deleted.';
create unique index deal_history_key
    on raw_hubspot.deal_history (project_id, deal_id, property, changed_at, value_mark);

create table raw_hubspot.merged_deals (
    project_id text not null,
    deal_id text not null,
    merged_into text not null,
    loaded_xid xid8 not null default pg_current_xact_id(),
    unreadable text,
    fetched_at timestamptz not null,
    _dlt_load_id text,
    _dlt_id text
);
comment on table raw_hubspot.merged_deals is
    'One row per deal that was merged into another one.';
create unique index merged_deals_key on raw_hubspot.merged_deals (project_id, deal_id, merged_into);

create table raw_hubspot.archived_deals (
    project_id text not null,
    deal_id text not null,
    archived_at timestamptz,
    is_gone boolean not null default false,
    gone_seen_at timestamptz,
    loaded_xid xid8 not null default pg_current_xact_id(),
    unreadable text,
    fetched_at timestamptz not null,
    _dlt_load_id text,
    _dlt_id text
);
comment on table raw_hubspot.archived_deals is
    'One row per deal that HubSpot has listed as deleted.';
create unique index archived_deals_key on raw_hubspot.archived_deals (project_id, deal_id);

create table raw_hubspot.ticket_pipelines (
    project_id text not null,
    pipeline_id text not null,
    label text,
    position bigint,
    created_at timestamptz,
    updated_at timestamptz,
    is_gone boolean not null default false,
    gone_seen_at timestamptz,
    unreadable text,
    fetched_at timestamptz not null,
    _dlt_load_id text,
    _dlt_id text
);
comment on table raw_hubspot.ticket_pipelines is
    'One row per pipeline of tickets, also after it is deleted.';
create unique index ticket_pipelines_key on raw_hubspot.ticket_pipelines (project_id, pipeline_id);

create table raw_hubspot.ticket_stages (
    project_id text not null,
    stage_id text not null,
    pipeline_id text,
    label text,
    position bigint,
    ticket_state text,
    created_at timestamptz,
    updated_at timestamptz,
    is_gone boolean not null default false,
    gone_seen_at timestamptz,
    unreadable text,
    fetched_at timestamptz not null,
    _dlt_load_id text,
    _dlt_id text
);
comment on table raw_hubspot.ticket_stages is
    'One row per stage of tickets, also after it is deleted.';
create unique index ticket_stages_key on raw_hubspot.ticket_stages (project_id, stage_id);

create table raw_hubspot.tickets (
    project_id text not null,
    ticket_id text not null,
    subject text,
    pipeline_id text,
    stage_id text,
    priority text,
    category text,
    origin text,
    owner_id text,
    resolution text,
    is_closed boolean,
    created_at timestamptz,
    first_reply_at timestamptz,
    reopened_at timestamptz,
    closed_at timestamptz,
    modified_at timestamptz,
    custom_fields text,
    is_gone boolean not null default false,
    gone_seen_at timestamptz,
    unreadable text,
    fetched_at timestamptz not null,
    _dlt_load_id text,
    _dlt_id text
);
comment on table raw_hubspot.tickets is
    'One row per ticket, as it was when last read.';
create unique index tickets_key on raw_hubspot.tickets (project_id, ticket_id);

create table raw_hubspot.calls (
    project_id text not null,
    call_id text not null,
    title text,
    direction text,
    disposition text,
    status text,
    activity_type text,
    owner_id text,
    duration_milliseconds numeric,
    called_at timestamptz,
    modified_at timestamptz,
    custom_fields text,
    is_gone boolean not null default false,
    gone_seen_at timestamptz,
    unreadable text,
    fetched_at timestamptz not null,
    _dlt_load_id text,
    _dlt_id text
);
comment on table raw_hubspot.calls is
    'One row per call, as it was when last read.';
create unique index calls_key on raw_hubspot.calls (project_id, call_id);

create table raw_hubspot.meetings (
    project_id text not null,
    meeting_id text not null,
    title text,
    outcome text,
    location text,
    owner_id text,
    planned_at timestamptz,
    started_at timestamptz,
    ended_at timestamptz,
    modified_at timestamptz,
    custom_fields text,
    is_gone boolean not null default false,
    gone_seen_at timestamptz,
    unreadable text,
    fetched_at timestamptz not null,
    _dlt_load_id text,
    _dlt_id text
);
comment on table raw_hubspot.meetings is
    'One row per meeting, as it was when last read.';
create unique index meetings_key on raw_hubspot.meetings (project_id, meeting_id);

create table raw_hubspot.feedback_submissions (
    project_id text not null,
    submission_id text not null,
    survey_id text,
    survey_name text,
    survey_type text,
    survey_channel text,
    value text,
    response_group text,
    sentiment text,
    contact_id text,
    ticket_id text,
    submitted_at timestamptz,
    created_at timestamptz,
    modified_at timestamptz,
    custom_fields text,
    is_gone boolean not null default false,
    gone_seen_at timestamptz,
    unreadable text,
    fetched_at timestamptz not null,
    _dlt_load_id text,
    _dlt_id text
);
comment on table raw_hubspot.feedback_submissions is
    'One row per answer to a survey, as it was when last read.';
create unique index feedback_submissions_key
    on raw_hubspot.feedback_submissions (project_id, submission_id);

create table raw_hubspot.rejects (
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
comment on table raw_hubspot.rejects is
    'One row per record that fits into no table, and why.';
create unique index rejects_key on raw_hubspot.rejects (project_id, reject_id);
revoke select on raw_hubspot.rejects from stageline_transformer;  -- no model reads it

comment on column raw_hubspot.deals.custom_fields is
    'Property -> value as HubSpot writes it, of all properties without a column.';
comment on column raw_hubspot.deals.is_gone is 'Whether HubSpot no longer lists it.';
comment on column raw_hubspot.deal_history.value_mark is
    'What the value looks like: two may have one instant.';
comment on column raw_hubspot.deal_history.place is
    'Place among the values of one instant, from 0; the higher one came later.';
comment on column raw_hubspot.archived_deals.is_gone is
    'Whether it is no longer listed: restored, or deleted for good after 90 days.';

create function raw_hubspot.stamp_change() returns trigger
language plpgsql
set search_path = pg_catalog
as $$
begin
    new.loaded_xid := pg_current_xact_id();
    return new;
end
$$;
comment on function raw_hubspot.stamp_change() is 'Notes which transaction changed a row.';
create index deals_loaded on raw_hubspot.deals (loaded_xid);
create trigger stamp_change before update on raw_hubspot.deals
    for each row execute function raw_hubspot.stamp_change();
create index deal_history_loaded on raw_hubspot.deal_history (loaded_xid);
create trigger stamp_change before update on raw_hubspot.deal_history
    for each row execute function raw_hubspot.stamp_change();
create index merged_deals_loaded on raw_hubspot.merged_deals (loaded_xid);
create trigger stamp_change before update on raw_hubspot.merged_deals
    for each row execute function raw_hubspot.stamp_change();
create index archived_deals_loaded on raw_hubspot.archived_deals (loaded_xid);
create trigger stamp_change before update on raw_hubspot.archived_deals
    for each row execute function raw_hubspot.stamp_change();

reset role;
"""

DOWN = """
drop schema raw_hubspot_staging, raw_hubspot cascade;
"""


def upgrade() -> None:
    op.get_bind().exec_driver_sql(UP, execution_options={"no_parameters": True})


def downgrade() -> None:
    op.get_bind().exec_driver_sql(DOWN, execution_options={"no_parameters": True})
