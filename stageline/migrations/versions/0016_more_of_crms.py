"""What more CRMs tell.

Statuses, history, emails and comments of Salesforce's cases; companies of HubSpot's deals, and the
deals that its calls and meetings are about; organizations of Pipedrive's deals, and which of its
activities are gone; fields of their own of KeyCRM's orders; the deal that an activity of a file is
about.

Columns and types are those that the loaders declared when this revision was made; a test compares
the two.
"""

from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None

UP = """
set local role stageline_loader;

create table raw_salesforce.case_statuses (
    project_id text not null,
    status_name text not null,
    status_id text,
    label text,
    api_name text,
    sort_order bigint,
    is_closed boolean,
    is_gone boolean not null default false,
    gone_seen_at timestamptz,
    unreadable text,
    fetched_at timestamptz not null,
    _dlt_load_id text,
    _dlt_id text
);
comment on table raw_salesforce.case_statuses is
    'One row per name by which cases call a status; a name that is no longer used stays.';
comment on column raw_salesforce.case_statuses.is_gone is
    'Whether Salesforce no longer lists it.';
create unique index case_statuses_key
    on raw_salesforce.case_statuses (project_id, status_name);

create table raw_salesforce.case_history (
    project_id text not null,
    history_id text not null,
    case_id text,
    created_by_id text,
    field text,
    data_type text,
    old_value text,
    new_value text,
    is_deleted boolean,
    created_at timestamptz,
    unreadable text,
    fetched_at timestamptz not null,
    _dlt_load_id text,
    _dlt_id text
);
comment on table raw_salesforce.case_history is
    'One row per change of a field of a case that the organisation tracks.';
create unique index case_history_key
    on raw_salesforce.case_history (project_id, history_id);

create table raw_salesforce.case_emails (
    project_id text not null,
    email_id text not null,
    case_id text,
    created_by_id text,
    status text,
    automation_type text,
    is_incoming boolean,
    is_deleted boolean,
    sent_at timestamptz,
    created_at timestamptz,
    system_modified_at timestamptz,
    unreadable text,
    fetched_at timestamptz not null,
    _dlt_load_id text,
    _dlt_id text
);
comment on table raw_salesforce.case_emails is
    'One row per email about a case, without addresses and words.';
create unique index case_emails_key
    on raw_salesforce.case_emails (project_id, email_id);

create table raw_salesforce.case_comments (
    project_id text not null,
    comment_id text not null,
    case_id text,
    created_by_id text,
    is_published boolean,
    is_deleted boolean,
    created_at timestamptz,
    system_modified_at timestamptz,
    unreadable text,
    fetched_at timestamptz not null,
    _dlt_load_id text,
    _dlt_id text
);
comment on table raw_salesforce.case_comments is
    'One row per comment on a case, without its words.';
create unique index case_comments_key
    on raw_salesforce.case_comments (project_id, comment_id);

create table raw_hubspot.associations (
    project_id text not null,
    from_id text not null,
    from_type text not null,
    to_type text not null,
    to_id text,
    to_ids text,
    read_for timestamptz,
    unreadable text,
    fetched_at timestamptz not null,
    _dlt_load_id text,
    _dlt_id text
);
comment on table raw_hubspot.associations is
    'One row per record and type of records that it may be associated with, as last asked for.';
comment on column raw_hubspot.associations.read_for is
    'The last change of the record for which they were asked for.';
create unique index associations_key
    on raw_hubspot.associations (project_id, from_id, from_type, to_type);

create table raw_hubspot.companies (
    project_id text not null,
    company_id text not null,
    name text,
    is_archived boolean,
    unreadable text,
    fetched_at timestamptz not null,
    _dlt_load_id text,
    _dlt_id text
);
comment on table raw_hubspot.companies is
    'One row per company that a deal is associated with.';
create unique index companies_key on raw_hubspot.companies (project_id, company_id);

create table raw_pipedrive.organizations (
    project_id text not null,
    organization_id text not null,
    name text,
    is_deleted boolean,
    added_at timestamptz,
    updated_at timestamptz,
    unreadable text,
    fetched_at timestamptz not null,
    _dlt_load_id text,
    _dlt_id text
);
comment on table raw_pipedrive.organizations is
    'One row per organization that a deal is about.';
create unique index organizations_key
    on raw_pipedrive.organizations (project_id, organization_id);

alter table raw_pipedrive.activities
    add column is_gone boolean not null default false,
    add column gone_seen_at timestamptz;
comment on column raw_pipedrive.activities.is_gone is 'Whether Pipedrive no longer lists it.';

alter table raw_keycrm.orders add column custom_fields text;

alter table raw_files.activities add column opportunity_id text;

reset role;
"""

DOWN = """
alter table raw_files.activities drop column opportunity_id;
alter table raw_keycrm.orders drop column custom_fields;
alter table raw_pipedrive.activities drop column gone_seen_at, drop column is_gone;
drop table
    raw_pipedrive.organizations,
    raw_hubspot.companies,
    raw_hubspot.associations,
    raw_salesforce.case_statuses,
    raw_salesforce.case_history,
    raw_salesforce.case_emails,
    raw_salesforce.case_comments;
"""


def upgrade() -> None:
    op.get_bind().exec_driver_sql(UP, execution_options={"no_parameters": True})


def downgrade() -> None:
    op.get_bind().exec_driver_sql(DOWN, execution_options={"no_parameters": True})
