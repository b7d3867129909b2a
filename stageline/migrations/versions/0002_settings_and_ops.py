"""Projects, and the books that loads, quality checks and builds keep."""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

UP = """
create function settings.is_time_zone(name text) returns boolean
language sql stable parallel safe
set search_path = pg_catalog
as $$
    select exists (select from pg_timezone_names as zone where zone.name = $1)
$$;
comment on function settings.is_time_zone(text) is 'Whether it is the IANA name of a time zone.';

create table settings.projects (
    source_system text not null check (source_system <> ''),
    project_id text not null check (project_id <> ''),
    name text,
    timezone text not null default 'UTC'
        constraint projects_timezone_exists check (settings.is_time_zone(timezone)),
    currency text not null default 'XXX'
        constraint projects_currency_is_iso_4217 check (currency ~ '^[A-Z]{3}$'),
    is_active boolean not null default true,
    created_at timestamptz not null default now(),
    primary key (source_system, project_id)
);
comment on table settings.projects is 'One row per project (account) of a source.';
comment on column settings.projects.timezone is
    'IANA name; decides the calendar days and working hours of the project.';
comment on column settings.projects.currency is
    'ISO 4217 code of amounts that come without one; XXX = none stated.';
comment on column settings.projects.is_active is 'Whether the project counts in the KPIs.';
grant select, insert on settings.projects to stageline_loader;

create table ops.loads (
    load_id uuid primary key default gen_random_uuid(),
    source text not null,
    entity text,
    project_id text,
    file_name text,
    file_sha256 text,
    started_at timestamptz not null default now(),
    finished_at timestamptz,
    rows_read bigint not null default 0,
    rows_loaded bigint not null default 0,
    rows_unchanged bigint not null default 0,
    rows_duplicate bigint not null default 0,
    rows_rejected bigint not null default 0,
    status text not null default 'running' check (status in ('running', 'success', 'failed')),
    error text
);
comment on table ops.loads is 'One row per load of one entity.';
create index loads_source_entity_started on ops.loads (source, entity, started_at desc);
create index loads_file on ops.loads (file_sha256);
grant select, insert, update on ops.loads to stageline_loader;
grant select on ops.loads to stageline_transformer;

create table ops.quality_runs (
    run_id uuid primary key default gen_random_uuid(),
    started_at timestamptz not null default now(),
    finished_at timestamptz,
    success boolean,
    critical_failures integer not null default 0
);
comment on table ops.quality_runs is 'One row per run of the quality checks.';
create index quality_runs_started on ops.quality_runs (started_at desc);

create table ops.quality_results (
    result_id bigint generated always as identity primary key,
    run_id uuid not null references ops.quality_runs (run_id) on delete cascade,
    suite text not null,
    schema_name text not null,
    table_name text not null,
    expectation text not null,
    column_name text,
    severity text not null check (severity in ('critical', 'warning')),
    success boolean not null,
    observed jsonb,
    details text,
    checked_at timestamptz not null default now()
);
comment on table ops.quality_results is 'One row per expectation checked in a run.';
create index quality_results_run on ops.quality_results (run_id);
create index quality_results_table
    on ops.quality_results (schema_name, table_name, checked_at desc);

create table ops.builds (
    build_id uuid primary key default gen_random_uuid(),
    invocation_id text,
    started_at timestamptz not null default now(),
    finished_at timestamptz,
    status text not null default 'running' check (status in ('running', 'success', 'failed')),
    selector text,
    nodes_ok integer not null default 0,
    nodes_failed integer not null default 0,
    seconds numeric
);
comment on table ops.builds is 'One row per dbt invocation that Stageline started.';
create index builds_started on ops.builds (started_at desc);
"""

DOWN = """
drop table ops.builds;
drop table ops.quality_results;
drop table ops.quality_runs;
drop table ops.loads;
drop table settings.projects;
drop function settings.is_time_zone(text);
"""


def upgrade() -> None:
    op.get_bind().exec_driver_sql(UP, execution_options={"no_parameters": True})


def downgrade() -> None:
    op.get_bind().exec_driver_sql(DOWN, execution_options={"no_parameters": True})
