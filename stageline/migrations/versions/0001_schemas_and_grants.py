"""Schemas, who owns them, and what each role may do in them.

The roles themselves belong to the server, not to this database: `stageline.roles` makes them before
the migrations run. Grants on dbt's tables are dbt's own (`+grants`), so there are no default
privileges for the reader: the two mixed could not be taken back by configuration.
"""

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

UP = """
create schema raw;
comment on schema raw is 'Deliveries of CRMs, verbatim, and the events parsed from them.';
grant usage on schema raw to stageline_receiver, stageline_transformer, stageline_jobs;
alter default privileges in schema raw grant select on tables to stageline_transformer;

create schema settings;
comment on schema settings is 'What operators decide: projects, dictionaries, rules.';
grant usage on schema settings to stageline_loader, stageline_transformer, stageline_jobs;
alter default privileges in schema settings
    grant select on tables to stageline_transformer, stageline_jobs;

comment on schema ops is 'What ran, how fresh it is, how good it is.';
grant usage on schema ops to stageline_loader, stageline_transformer, stageline_jobs;
alter default privileges in schema ops
    grant select, insert, update, delete on tables to stageline_jobs;

create schema raw_files authorization stageline_loader;
create schema raw_files_staging authorization stageline_loader;
create schema raw_demo authorization stageline_loader;
create schema raw_demo_staging authorization stageline_loader;
create schema raw_sample authorization stageline_transformer;
create schema reference authorization stageline_transformer;
create schema staging authorization stageline_transformer;
create schema intermediate authorization stageline_transformer;
create schema kpis authorization stageline_transformer;
create schema snapshots authorization stageline_transformer;

set local role stageline_loader;
comment on schema raw_files is 'What was loaded from files: one table per entity, and the rejects.';
comment on schema raw_files_staging is 'Scratch tables of a load in progress.';
comment on schema raw_demo is 'The demo source.';
comment on schema raw_demo_staging is 'Scratch tables of a load in progress.';
grant usage on schema raw_files, raw_demo to stageline_transformer;
alter default privileges in schema raw_files grant select on tables to stageline_transformer;
alter default privileges in schema raw_demo grant select on tables to stageline_transformer;

set local role stageline_transformer;
comment on schema raw_sample is 'The sample data, loaded from the seeds of the dbt project.';
comment on schema reference is 'Definitions that change what a KPI means, kept in git by analysts.';
comment on schema staging is 'One conformed view or table per entity, over all sources.';
comment on schema intermediate is 'Steps that more than one KPI needs.';
comment on schema kpis is 'The tables that people and BI tools read.';
comment on schema snapshots is 'How records were at earlier times.';
grant usage on schema reference, kpis, snapshots to stageline_reader;

reset role;
"""

DOWN = """
drop schema snapshots, kpis, intermediate, staging, reference, raw_sample cascade;
drop schema raw_demo_staging, raw_demo, raw_files_staging, raw_files cascade;
drop schema settings, raw cascade;
alter default privileges in schema ops
    revoke select, insert, update, delete on tables from stageline_jobs;
revoke usage on schema ops from stageline_loader, stageline_transformer, stageline_jobs;
comment on schema ops is null;
"""


def upgrade() -> None:
    op.get_bind().exec_driver_sql(UP, execution_options={"no_parameters": True})


def downgrade() -> None:
    op.get_bind().exec_driver_sql(DOWN, execution_options={"no_parameters": True})
