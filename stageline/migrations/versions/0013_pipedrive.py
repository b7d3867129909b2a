"""What loads of Pipedrive fill: lists, and which histories are complete.

Changes of deals stay in the table that follow-up work fills: whoever reads one first, it is the
same row. Such a row tells when it was first known; a load that reads it again changes nothing of
that. Where a deal was listed, and asked about by follow-up work, models take what was updated last.
"""

from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

UP = """
create schema raw_pipedrive_staging authorization stageline_loader;

set local role stageline_loader;
comment on schema raw_pipedrive_staging is 'Scratch tables of a load in progress.';
comment on schema raw_pipedrive is
    'What Pipedrive answered: what it lists, deals that webhooks named, changes of deals.';

create table raw_pipedrive.pipelines (
    project_id text not null,
    pipeline_id text not null,
    name text,
    position bigint,
    is_deleted boolean,
    is_probability_enabled boolean,
    added_at timestamptz,
    updated_at timestamptz,
    is_gone boolean not null default false,
    gone_seen_at timestamptz,
    unreadable text,
    fetched_at timestamptz not null,
    _dlt_load_id text,
    _dlt_id text
);
comment on table raw_pipedrive.pipelines is
    'One row per pipeline that was ever listed.';
create unique index pipelines_key
    on raw_pipedrive.pipelines (project_id, pipeline_id);

create table raw_pipedrive.stages (
    project_id text not null,
    stage_id text not null,
    pipeline_id text,
    name text,
    position bigint,
    deal_probability numeric,
    is_deleted boolean,
    is_deal_rot_enabled boolean,
    days_to_rotten bigint,
    added_at timestamptz,
    updated_at timestamptz,
    is_gone boolean not null default false,
    gone_seen_at timestamptz,
    unreadable text,
    fetched_at timestamptz not null,
    _dlt_load_id text,
    _dlt_id text
);
comment on table raw_pipedrive.stages is
    'One row per stage that was ever listed.';
create unique index stages_key
    on raw_pipedrive.stages (project_id, stage_id);

create table raw_pipedrive.users (
    project_id text not null,
    user_id text not null,
    name text,
    is_active boolean,
    created_at timestamptz,
    updated_at timestamptz,
    unreadable text,
    fetched_at timestamptz not null,
    _dlt_load_id text,
    _dlt_id text
);
comment on table raw_pipedrive.users is
    'One row per user, those that are no longer active included.';
create unique index users_key
    on raw_pipedrive.users (project_id, user_id);

create table raw_pipedrive.deal_fields (
    project_id text not null,
    field_key text not null,
    name text,
    field_type text,
    is_custom boolean,
    unreadable text,
    fetched_at timestamptz not null,
    _dlt_load_id text,
    _dlt_id text
);
comment on table raw_pipedrive.deal_fields is
    'One row per field of deals; of custom ones the key is what deals call them by.';
create unique index deal_fields_key
    on raw_pipedrive.deal_fields (project_id, field_key);

create table raw_pipedrive.deal_field_options (
    project_id text not null,
    field_key text not null,
    option_id text not null,
    label text,
    unreadable text,
    fetched_at timestamptz not null,
    _dlt_load_id text,
    _dlt_id text
);
comment on table raw_pipedrive.deal_field_options is
    'One row per option of a custom field, those that were removed included.';
create unique index deal_field_options_key
    on raw_pipedrive.deal_field_options (project_id, field_key, option_id);

create table raw_pipedrive.listed_deals (
    project_id text not null,
    deal_id text not null,
    title text,
    owner_id text,
    creator_user_id text,
    person_id text,
    org_id text,
    pipeline_id text,
    stage_id text,
    status text,
    value numeric,
    currency text,
    probability numeric,
    expected_close_date date,
    lost_reason text,
    added_at timestamptz,
    updated_at timestamptz,
    stage_changed_at timestamptz,
    closed_at timestamptz,
    won_at timestamptz,
    lost_at timestamptz,
    archived_at timestamptz,
    is_archived boolean,
    is_deleted boolean,
    origin text,
    origin_id text,
    channel text,
    channel_id text,
    acv numeric,
    arr numeric,
    mrr numeric,
    label_ids text,
    custom_fields text,
    history_mark text,
    is_gone boolean not null default false,
    gone_seen_at timestamptz,
    unreadable text,
    fetched_at timestamptz not null,
    loaded_xid xid8 not null default pg_current_xact_id(),
    _dlt_load_id text,
    _dlt_id text
);
comment on table raw_pipedrive.listed_deals is
    'One row per deal, as it was when it was last listed.';
create unique index listed_deals_key
    on raw_pipedrive.listed_deals (project_id, deal_id);

create table raw_pipedrive.activities (
    project_id text not null,
    activity_id text not null,
    type text,
    owner_id text,
    deal_id text,
    lead_id text,
    due_date date,
    due_at timestamptz,
    is_done boolean,
    done_at timestamptz,
    is_deleted boolean,
    added_at timestamptz,
    updated_at timestamptz,
    unreadable text,
    fetched_at timestamptz not null,
    _dlt_load_id text,
    _dlt_id text
);
comment on table raw_pipedrive.activities is
    'One row per activity (call, meeting ...), without what was said to whom.';
create unique index activities_key
    on raw_pipedrive.activities (project_id, activity_id);

create table raw_pipedrive.deal_histories (
    project_id text not null,
    deal_id text not null,
    history_mark text,
    asked_at timestamptz,
    unreadable text,
    fetched_at timestamptz not null,
    loaded_xid xid8 not null default pg_current_xact_id(),
    _dlt_load_id text,
    _dlt_id text
);
comment on table raw_pipedrive.deal_histories is
    'One row per deal whose changes were read: for which state of it they are complete.';
create unique index deal_histories_key
    on raw_pipedrive.deal_histories (project_id, deal_id);

comment on column raw_pipedrive.listed_deals.history_mark is
    'What the fields are that histories are read for, as one text; null where none ever changed.';
comment on column raw_pipedrive.deal_histories.history_mark is
    'That of the deal for which its changes in deal_changes are complete.';
create index listed_deals_loaded on raw_pipedrive.listed_deals (loaded_xid);
create index deal_histories_loaded on raw_pipedrive.deal_histories (loaded_xid);

create function raw_pipedrive.stamp_change() returns trigger
language plpgsql
set search_path = pg_catalog
as $$
begin
    new.loaded_xid := pg_current_xact_id();
    return new;
end
$$;
comment on function raw_pipedrive.stamp_change() is 'Notes which transaction changed a row.';
create trigger stamp_change before update on raw_pipedrive.listed_deals
    for each row execute function raw_pipedrive.stamp_change();
create trigger stamp_change before update on raw_pipedrive.deal_histories
    for each row execute function raw_pipedrive.stamp_change();

create table raw_pipedrive.rejects (
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
comment on table raw_pipedrive.rejects is
    'One row per record that fits into no table, as it came, and why.';
create unique index rejects_key on raw_pipedrive.rejects (project_id, reject_id);
revoke select on raw_pipedrive.rejects from stageline_transformer;  -- no model reads it

alter table raw_pipedrive.deals add column updated_at timestamptz;
comment on column raw_pipedrive.deals.updated_at is 'When Pipedrive last updated it.';

alter table raw_pipedrive.deal_changes
    alter column field_key drop not null,
    alter column changed_at drop not null,
    add column unreadable text,
    add column _dlt_load_id text,
    add column _dlt_id text;

create function raw_pipedrive.keep_first_reading() returns trigger
language plpgsql
set search_path = pg_catalog
as $$
begin
    if (
        new.field_key, new.old_value, new.new_value, new.old_label, new.new_label, new.user_id,
        new.change_source, new.changed_at
    ) is distinct from (
        old.field_key, old.old_value, old.new_value, old.old_label, old.new_label, old.user_id,
        old.change_source, old.changed_at
    ) then
        new.fetched_xid := pg_current_xact_id();
    else
        new.fetched_at := old.fetched_at;
    end if;
    return new;
end
$$;
comment on function raw_pipedrive.keep_first_reading() is
    'Keeps when a change was first read, and by which transaction, where it is read again.';
create trigger keep_first_reading before update on raw_pipedrive.deal_changes
    for each row execute function raw_pipedrive.keep_first_reading();

reset role;
"""

DOWN = """
set local role stageline_loader;
drop trigger keep_first_reading on raw_pipedrive.deal_changes;
drop function raw_pipedrive.keep_first_reading();
delete from raw_pipedrive.deal_changes where field_key is null or changed_at is null;
alter table raw_pipedrive.deal_changes
    drop column _dlt_id,
    drop column _dlt_load_id,
    drop column unreadable,
    alter column changed_at set not null,
    alter column field_key set not null;
alter table raw_pipedrive.deals drop column updated_at;
drop table
    raw_pipedrive.rejects, raw_pipedrive.deal_histories, raw_pipedrive.activities,
    raw_pipedrive.listed_deals, raw_pipedrive.deal_field_options, raw_pipedrive.deal_fields,
    raw_pipedrive.users, raw_pipedrive.stages, raw_pipedrive.pipelines;
drop function raw_pipedrive.stamp_change();
comment on schema raw_pipedrive is 'What Pipedrive answered: deals and their changes.';
reset role;
drop schema raw_pipedrive_staging cascade;
"""


def upgrade() -> None:
    op.get_bind().exec_driver_sql(UP, execution_options={"no_parameters": True})


def downgrade() -> None:
    op.get_bind().exec_driver_sql(DOWN, execution_options={"no_parameters": True})
