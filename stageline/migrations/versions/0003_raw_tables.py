"""The tables that files and the demo source are loaded into.

The loader owns them, because dlt adds columns to them. Columns and types are those of
``loaders/entities.py`` as it was when this revision was made; a test compares the two. dlt's own
two columns may be empty, since rows that come as Arrow tables carry none.
"""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

UP = """
set local role stageline_loader;

create table raw_files.leads (
    source_system text not null default 'file',
    project_id text not null,
    lead_id text not null,
    facility_id text,
    rep_id text,
    stage text not null,
    amount numeric,
    currency text,
    win_probability numeric,
    created_at timestamptz not null,
    sql_at timestamptz,
    opportunity_at timestamptz,
    won_at timestamptz,
    lost_at timestamptz,
    updated_at timestamptz,
    is_deleted boolean,
    source_file text,
    source_line bigint,
    _dlt_load_id text,
    _dlt_id text
);
comment on table raw_files.leads is
    'One row per lead, with the stage it has reached.';
create unique index leads_key
    on raw_files.leads (project_id, lead_id);

create table raw_files.opportunities (
    source_system text not null default 'file',
    project_id text not null,
    opportunity_id text not null,
    lead_id text,
    facility_id text,
    rep_id text,
    name text,
    company text,
    stage text,
    status text not null,
    amount numeric,
    currency text,
    win_probability numeric,
    created_at timestamptz not null,
    closed_at timestamptz,
    expected_close_date date,
    updated_at timestamptz,
    is_deleted boolean,
    source_file text,
    source_line bigint,
    _dlt_load_id text,
    _dlt_id text
);
comment on table raw_files.opportunities is
    'One row per opportunity (deal).';
create unique index opportunities_key
    on raw_files.opportunities (project_id, opportunity_id);

create table raw_files.tickets (
    source_system text not null default 'file',
    project_id text not null,
    ticket_id text not null,
    facility_id text,
    agent_id text,
    priority text not null,
    status text not null,
    created_at timestamptz not null,
    first_response_at timestamptz,
    first_resolved_at timestamptz,
    last_resolved_at timestamptz,
    waiting_since timestamptz,
    waiting_seconds bigint,
    updated_at timestamptz,
    is_deleted boolean,
    source_file text,
    source_line bigint,
    _dlt_load_id text,
    _dlt_id text
);
comment on table raw_files.tickets is
    'One row per support ticket.';
create unique index tickets_key
    on raw_files.tickets (project_id, ticket_id);

create table raw_files.satisfaction (
    source_system text not null default 'file',
    project_id text not null,
    response_id text not null,
    facility_id text,
    ticket_id text,
    survey_type text not null,
    score bigint not null,
    responded_at timestamptz not null,
    is_deleted boolean,
    source_file text,
    source_line bigint,
    _dlt_load_id text,
    _dlt_id text
);
comment on table raw_files.satisfaction is
    'One row per survey response.';
create unique index satisfaction_key
    on raw_files.satisfaction (project_id, response_id);

create table raw_files.outreach (
    source_system text not null default 'file',
    project_id text not null,
    outreach_id text not null,
    rep_id text,
    facility_id text,
    lead_id text,
    channel text not null,
    sent_at timestamptz not null,
    responded_at timestamptz,
    converted_at timestamptz,
    is_deleted boolean,
    source_file text,
    source_line bigint,
    _dlt_load_id text,
    _dlt_id text
);
comment on table raw_files.outreach is
    'One row per outreach (one attempt to reach one prospect).';
create unique index outreach_key
    on raw_files.outreach (project_id, outreach_id);

create table raw_files.invoices (
    source_system text not null default 'file',
    project_id text not null,
    invoice_id text not null,
    facility_id text,
    opportunity_id text,
    status text not null,
    amount numeric not null,
    currency text,
    issued_at timestamptz not null,
    due_at timestamptz,
    paid_at timestamptz,
    is_deleted boolean,
    source_file text,
    source_line bigint,
    _dlt_load_id text,
    _dlt_id text
);
comment on table raw_files.invoices is
    'One row per invoice.';
create unique index invoices_key
    on raw_files.invoices (project_id, invoice_id);

create table raw_files.applications (
    source_system text not null default 'file',
    project_id text not null,
    application_id text not null,
    facility_id text,
    status text not null,
    submitted_at timestamptz not null,
    due_at timestamptz,
    decided_at timestamptz,
    is_compliant boolean,
    is_deleted boolean,
    source_file text,
    source_line bigint,
    _dlt_load_id text,
    _dlt_id text
);
comment on table raw_files.applications is
    'One row per application that is reviewed for compliance.';
create unique index applications_key
    on raw_files.applications (project_id, application_id);

create table raw_files.stage_events (
    source_system text not null default 'file',
    project_id text not null,
    entity_type text not null,
    entity_id text not null,
    pipeline_id text,
    stage_id text not null,
    stage_group_id text,
    entered_at timestamptz not null,
    sequence bigint,
    source_file text,
    source_line bigint,
    _dlt_load_id text,
    _dlt_id text
);
comment on table raw_files.stage_events is
    'One row per entry of a deal or order into a stage.';
create unique index stage_events_key
    on raw_files.stage_events (project_id, entity_type, entity_id, stage_id, entered_at);

create table raw_files.activities (
    source_system text not null default 'file',
    project_id text not null,
    activity_id text not null,
    activity_type text not null,
    rep_id text,
    lead_id text,
    facility_id text,
    channel text,
    scheduled_at timestamptz,
    completed_at timestamptz,
    outcome text,
    is_deleted boolean,
    source_file text,
    source_line bigint,
    _dlt_load_id text,
    _dlt_id text
);
comment on table raw_files.activities is
    'One row per sales activity.';
create unique index activities_key
    on raw_files.activities (project_id, activity_id);

create table raw_files.rejects (
    entity text not null,
    project_id text not null,
    source_file text,
    source_sha256 text not null,
    source_line bigint not null,
    row text,
    field text,
    reason text not null,
    rejected_at timestamptz not null default now(),
    primary key (project_id, entity, source_sha256, source_line)
);
comment on table raw_files.rejects is
    'One row per line of a file that did not fit, as it was read, and why.';
revoke select on raw_files.rejects from stageline_transformer;  -- no model reads it

create table raw_demo.opportunities (
    id text not null,
    name text,
    company text,
    stage text,
    value numeric,
    probability numeric,
    owner text,
    created_at timestamptz,
    updated_at timestamptz,
    _dlt_load_id text,
    _dlt_id text
);
comment on table raw_demo.opportunities is 'One row per deal of the demo source.';
create unique index opportunities_key on raw_demo.opportunities (id);

reset role;
"""

DOWN = """
drop table raw_demo.opportunities;
drop table raw_files.rejects;
drop table raw_files.activities;
drop table raw_files.stage_events;
drop table raw_files.applications;
drop table raw_files.invoices;
drop table raw_files.outreach;
drop table raw_files.satisfaction;
drop table raw_files.tickets;
drop table raw_files.opportunities;
drop table raw_files.leads;
"""


def upgrade() -> None:
    op.get_bind().exec_driver_sql(UP, execution_options={"no_parameters": True})


def downgrade() -> None:
    op.get_bind().exec_driver_sql(DOWN, execution_options={"no_parameters": True})
