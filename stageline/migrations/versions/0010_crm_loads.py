"""What loads of CRMs keep: how far each resource is loaded, and how much each account allows.

Some CRMs count kinds of calls apart, so that the pace of an account has a row for each kind.
"""

from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

UP = """
create table ops.load_positions (
    source_system text not null,
    project_id text not null,
    resource text not null,
    position jsonb not null,
    updated_at timestamptz not null default now(),
    primary key (source_system, project_id, resource)
);
comment on table ops.load_positions is
    'One row per resource of an account that is loaded: where its next load goes on.';
comment on column ops.load_positions.position is
    'Known to the resource alone; everything before it is in the database.';
grant select, insert, update, delete on ops.load_positions to stageline_loader;

alter table settings.api_accounts
    add column allowance numeric not null default 1
        constraint api_accounts_allowance check (allowance > 0 and allowance <= 1000000);
comment on column settings.api_accounts.allowance is
    'How many times the calls of the smallest plan of the CRM the account may make.';

alter table ops.api_pace add column kind text not null default 'calls';
alter table ops.api_pace drop constraint api_pace_pkey;
alter table ops.api_pace add primary key (source_system, project_id, kind);
comment on table ops.api_pace is
    'One row per account of a CRM and kind of call: when the next one may go out, whichever process'
    ' makes it.';
comment on column ops.api_pace.kind is
    'calls = all calls, a block of which holds for every kind; others are counted apart as well.';

create table settings.field_map (
    source_system text not null,
    project_id text not null,
    entity text not null
        check (entity in ('deals', 'tickets', 'surveys', 'activities', 'orders', 'leads')),
    field text not null check (field in ('facility_id', 'rep_id', 'lead_id', 'company')),
    crm_field text not null check (crm_field <> ''),
    primary key (source_system, project_id, entity, field),
    foreign key (source_system, project_id) references settings.projects
);
comment on table settings.field_map is
    'One row per field of ours that a field of a project''s CRM feeds.';
comment on column settings.field_map.crm_field is
    'As the API calls it: a property of HubSpot, an API name of Salesforce, a key of Pipedrive.';
create trigger record_change after insert or update or delete on settings.field_map
    for each row execute function settings.record_change();
"""

DOWN = """
drop table settings.field_map;
delete from ops.api_pace where kind != 'calls';
alter table ops.api_pace drop constraint api_pace_pkey;
alter table ops.api_pace drop column kind;
alter table ops.api_pace add primary key (source_system, project_id);
alter table settings.api_accounts drop column allowance;
drop table ops.load_positions;
"""


def upgrade() -> None:
    op.get_bind().exec_driver_sql(UP, execution_options={"no_parameters": True})


def downgrade() -> None:
    op.get_bind().exec_driver_sql(DOWN, execution_options={"no_parameters": True})
