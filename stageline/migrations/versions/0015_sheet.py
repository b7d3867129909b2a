"""The tables that sheets are loaded into."""

from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

UP = """
create schema raw_sheet authorization stageline_loader;
create schema raw_sheet_staging authorization stageline_loader;

set local role stageline_loader;
comment on schema raw_sheet is 'What was loaded from sheets.';
comment on schema raw_sheet_staging is 'Scratch tables of a load in progress.';
grant usage on schema raw_sheet to stageline_transformer;
alter default privileges in schema raw_sheet grant select on tables to stageline_transformer;

create table raw_sheet.opportunities (
    project_id text not null,
    opportunity_id text not null,
    lead_id text,
    facility_id text,
    rep_id text,
    name text,
    company text,
    stage text,
    status text,
    amount numeric,
    currency text,
    win_probability numeric,
    created_at timestamptz,
    closed_at timestamptz,
    expected_close_date date,
    updated_at timestamptz,
    is_deleted boolean,
    custom_fields text,
    is_gone boolean not null default false,
    gone_seen_at timestamptz,
    unreadable text,
    fetched_at timestamptz not null,
    _dlt_load_id text,
    _dlt_id text
);
comment on table raw_sheet.opportunities is
    'One row per opportunity, as the sheet last had it.';
create unique index opportunities_key on raw_sheet.opportunities (project_id, opportunity_id);

create table raw_sheet.rejects (
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
comment on table raw_sheet.rejects is
    'One row per record that fits into no row, as it came, and why.';
create unique index rejects_key on raw_sheet.rejects (project_id, reject_id);
revoke select on raw_sheet.rejects from stageline_transformer;  -- no model reads it

reset role;
"""

DOWN = """
drop schema raw_sheet_staging, raw_sheet cascade;
"""


def upgrade() -> None:
    op.get_bind().exec_driver_sql(UP, execution_options={"no_parameters": True})


def downgrade() -> None:
    op.get_bind().exec_driver_sql(DOWN, execution_options={"no_parameters": True})
