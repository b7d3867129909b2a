"""What sales reports are made from: reps, pipeline items, sublists, sales, targets and thresholds.

Columns and types of the tables of files are those of ``loaders/entities.py`` as it was when this
revision was made; a test compares the two.
"""

from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None

_FILES = """
set local role stageline_loader;

alter table raw_files.activities
    add column item_id text,
    add column created_at timestamptz,
    add column updated_at timestamptz;

create table raw_files.reps (
    source_system text not null default 'file',
    project_id text not null,
    rep_id text not null,
    name text,
    team_id text,
    active_from date not null,
    active_to date,
    is_deleted boolean,
    source_file text,
    source_line bigint,
    _dlt_load_id text,
    _dlt_id text
);
comment on table raw_files.reps is
    'One row per sales rep and time in a team; who changes teams or is back has several.';
create unique index reps_key
    on raw_files.reps (project_id, rep_id, active_from);

create table raw_files.pipeline_items (
    source_system text not null default 'file',
    project_id text not null,
    item_id text not null,
    lead_id text,
    rep_id text,
    facility_id text,
    sublist_id text,
    stage text not null,
    created_at timestamptz not null,
    call_booked_at timestamptz,
    call_conducted_at timestamptz,
    proposal_at timestamptz,
    agreement_at timestamptz,
    partner_list_due_at timestamptz,
    partner_list_sent_at timestamptz,
    first_sale_at timestamptz,
    partner_list_size bigint,
    total_sales_from_list bigint,
    closed_at timestamptz,
    updated_at timestamptz,
    is_deleted boolean,
    source_file text,
    source_line bigint,
    _dlt_load_id text,
    _dlt_id text
);
comment on table raw_files.pipeline_items is
    'One row per pipeline item: a lead on its way to a list-out, or a contact of its list.';
create unique index pipeline_items_key
    on raw_files.pipeline_items (project_id, item_id);

create table raw_files.sublists (
    source_system text not null default 'file',
    project_id text not null,
    sublist_id text not null,
    item_id text not null,
    name text,
    created_at timestamptz not null,
    is_deleted boolean,
    source_file text,
    source_line bigint,
    _dlt_load_id text,
    _dlt_id text
);
comment on table raw_files.sublists is
    'One row per sublist: the partner contacts that a list-out spawned.';
create unique index sublists_key
    on raw_files.sublists (project_id, sublist_id);

create table raw_files.sales (
    source_system text not null default 'file',
    project_id text not null,
    sale_id text not null,
    item_id text,
    lead_id text,
    rep_id text,
    facility_id text,
    sold_at timestamptz not null,
    amount numeric not null,
    currency text,
    is_deleted boolean,
    source_file text,
    source_line bigint,
    _dlt_load_id text,
    _dlt_id text
);
comment on table raw_files.sales is
    'One row per sale.';
create unique index sales_key
    on raw_files.sales (project_id, sale_id);

reset role;
"""

_SETTINGS = """
create table settings.kpi_targets (
    kpi_target_id bigint generated always as identity primary key,
    source_system text not null,
    project_id text not null,
    kpi text not null
        check (kpi in ('calls', 'proposals', 'agreements', 'lists_out', 'sales', 'revenue')),
    subject_type text not null check (subject_type in ('rep', 'team', 'all')),
    subject_id text check (subject_id <> ''),
    period text not null check (period in ('week', 'month')),
    target numeric not null check (target > 0 and target < 'Infinity'),
    currency text,
    effective_from date not null default '1900-01-01',
    effective_to date,
    foreign key (source_system, project_id) references settings.projects,
    constraint kpi_targets_subject check (
        (subject_type = 'all' and subject_id is null)
        or (subject_type = 'team' and subject_id is not null)
        or subject_type = 'rep'
    ),
    constraint kpi_targets_period check (period = 'month' or kpi = 'calls'),
    constraint kpi_targets_currency check (
        (currency is not null) = (kpi = 'revenue') and currency ~ '^[A-Z]{3}$'
    ),
    constraint kpi_targets_valid check (effective_to > effective_from),
    constraint kpi_targets_unambiguous exclude using gist (
        settings.point(
            source_system, project_id, kpi, subject_type, subject_id, period, currency
        ) with &&,
        daterange(effective_from, effective_to) with &&
    )
);
comment on table settings.kpi_targets is
    'One row per KPI, subject, period and time: what is to be reached in a week or month.';
comment on column settings.kpi_targets.subject_id is
    'Rep or team; null = all, or every rep without a target of their own.';
comment on column settings.kpi_targets.target is 'Count; for revenue an amount in `currency`.';
comment on column settings.kpi_targets.effective_from is 'First day, in the project''s zone.';
comment on column settings.kpi_targets.effective_to is
    'First day on which it counts no more; null = still does.';

create table settings.alert_thresholds (
    alert_threshold_id bigint generated always as identity primary key,
    source_system text not null,
    project_id text not null,
    rule text not null check (rule <> ''),
    threshold numeric not null check (threshold >= 0 and threshold < 'Infinity'),
    effective_from date not null default '1900-01-01',
    effective_to date,
    foreign key (source_system, project_id) references settings.projects,
    constraint alert_thresholds_valid check (effective_to > effective_from),
    constraint alert_thresholds_unambiguous exclude using gist (
        settings.point(source_system, project_id, rule) with &&,
        daterange(effective_from, effective_to) with &&
    )
);
comment on table settings.alert_thresholds is
    'One row per rule of alerts, project and time: where it raises an alert.';
comment on column settings.alert_thresholds.rule is
    'Key in reference.alert_rules, whose threshold holds where there is no row.';
comment on column settings.alert_thresholds.effective_from is 'First day, in the project''s zone.';
comment on column settings.alert_thresholds.effective_to is
    'First day on which it counts no more; null = still does.';
"""

#: Tables of settings whose changes are recorded.
_AUDITED = ("kpi_targets", "alert_thresholds")


def _audited(table: str) -> str:
    return (
        f"create trigger record_change after insert or update or delete on settings.{table}"
        " for each row execute function settings.record_change();"
    )


_DOWN = """
drop table settings.alert_thresholds, settings.kpi_targets;
drop table raw_files.sales, raw_files.sublists, raw_files.pipeline_items, raw_files.reps;
alter table raw_files.activities
    drop column updated_at, drop column created_at, drop column item_id;
"""


def upgrade() -> None:
    run = op.get_bind().exec_driver_sql
    for statements in (
        _FILES,
        _SETTINGS,
        *(_audited(table) for table in _AUDITED),
    ):
        run(statements, execution_options={"no_parameters": True})


def downgrade() -> None:
    op.get_bind().exec_driver_sql(_DOWN, execution_options={"no_parameters": True})
