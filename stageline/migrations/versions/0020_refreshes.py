"""Groups of models that are refreshed together: their runs, and how fresh each model is."""

from alembic import op

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None

UP = """
create table ops.refresh_groups (
    group_name text primary key,
    schedule text not null,
    zone text not null,
    criticality text not null check (criticality in ('critical', 'high', 'medium', 'low')),
    owner text not null,
    never_older_than_seconds integer check (never_older_than_seconds > 0),
    done_within_seconds integer check (done_within_seconds > 0),
    next_slot timestamptz,
    expected_at timestamptz,
    paused_at timestamptz,
    paused_by text,
    constraint refresh_groups_promise check (
        (never_older_than_seconds is null) != (done_within_seconds is null)
    )
);
comment on table ops.refresh_groups is
    'One row per group of jobs/kpi_refresh_config.yml, as the last worker or command read it.';
comment on column ops.refresh_groups.never_older_than_seconds is
    'Promise: what had come in so many seconds ago is in its tables.';
comment on column ops.refresh_groups.done_within_seconds is
    'Promise: so many seconds after a slot its tables hold what had come in by the slot.';
comment on column ops.refresh_groups.next_slot is 'When its schedule asks for the next run.';
comment on column ops.refresh_groups.expected_at is
    'When the run that is under way, waits or comes next should be done, by how long runs took.';

create table ops.runs (
    run_id uuid primary key default gen_random_uuid(),
    group_name text not null,
    slot timestamptz,
    requested_at timestamptz not null,
    requested_by text not null,
    due_at timestamptz not null,
    deadline timestamptz,
    status text not null default 'waiting'
        check (status in ('waiting', 'running', 'success', 'failed', 'cancelled', 'skipped')),
    attempts integer not null default 0,
    started_at timestamptz,
    finished_at timestamptz,
    build_id uuid,
    nodes_to_retry text[],
    error text,
    constraint runs_slot unique (group_name, slot)
);
comment on table ops.runs is
    'One row per run of a group: of a slot of its schedule, or asked for by hand.';
comment on column ops.runs.slot is
    'Slot of the schedule that it is for; null where asked for by hand.';
comment on column ops.runs.requested_by is
    '`schedule`, or the login on whose behalf it was asked for.';
comment on column ops.runs.due_at is 'When its next attempt may begin.';
comment on column ops.runs.deadline is
    'When the promise of its group is broken unless it is done; no attempt is made again after it.';
comment on column ops.runs.status is
    'waiting, running, success, failed, cancelled by hand, skipped = a later slot came first.';
comment on column ops.runs.build_id is
    'Its last build, in ops.builds; runs that began together share it.';
comment on column ops.runs.nodes_to_retry is
    'What the next attempt builds alone: nodes that failed, and those after them.';
comment on column ops.runs.error is
    'Why its last attempt failed; of a good one, what it could do without. One line.';
create index runs_open on ops.runs (due_at) where status in ('waiting', 'running');
create index runs_group on ops.runs (group_name, requested_at desc);

create table ops.node_runs (
    build_id uuid not null references ops.builds (build_id) on delete cascade,
    node_kind text not null,
    node_name text not null,
    status text not null,
    seconds numeric not null,
    primary key (build_id, node_kind, node_name)
);
comment on table ops.node_runs is
    'One row per model, seed and snapshot of a build, and per test of it that did not pass.';
comment on column ops.node_runs.seconds is 'How long it ran.';
create index node_runs_node on ops.node_runs (node_name, node_kind);

create table ops.model_states (
    model text primary key,
    group_name text,
    schema_name text not null,
    is_stored boolean not null,
    reflects_until timestamptz,
    build_id uuid
);
comment on table ops.model_states is
    'One row per model and snapshot: up to when it holds what came in. Written after each build.';
comment on column ops.model_states.group_name is
    'Group that refreshes it; null where none promises it.';
comment on column ops.model_states.is_stored is
    'Whether its rows are stored; else it is a view, as fresh as what it reads.';
comment on column ops.model_states.reflects_until is
    'All that had come in by then is in it: the start of its last good build or, if earlier,'
    ' of the last good load of a CRM that it is made of, or of a build of what it reads.';

create view ops.model_freshness as
with

promised as (
    select
        model_states.model,
        model_states.group_name,
        refresh_groups.criticality,
        refresh_groups.owner,
        refresh_groups.paused_at is not null as is_paused,
        model_states.reflects_until,
        refresh_groups.expected_at,
        coalesce(refresh_groups.never_older_than_seconds, refresh_groups.done_within_seconds)
            as promised_seconds,
        refresh_groups.never_older_than_seconds is null as is_after_slot,
        case
            when refresh_groups.never_older_than_seconds is not null
                then
                    model_states.reflects_until
                    + make_interval(secs => refresh_groups.never_older_than_seconds)
            else
                least(
                    (
                        select min(runs.slot)
                        from ops.runs
                        where
                            runs.group_name = refresh_groups.group_name
                            and runs.slot > model_states.reflects_until
                    ),
                    refresh_groups.next_slot
                ) + make_interval(secs => refresh_groups.done_within_seconds)
        end as breaches_at
    from ops.model_states
    inner join ops.refresh_groups
        on model_states.group_name = refresh_groups.group_name
    where model_states.schema_name = 'kpis'
)

select
    model,
    group_name,
    criticality,
    owner,
    reflects_until,
    round(extract(epoch from now() - reflects_until), 0) as age_seconds,
    promised_seconds,
    is_after_slot,
    breaches_at,
    expected_at,
    is_paused,
    case
        when reflects_until is null then 'never built'
        when breaches_at <= now() then 'breached'
        when breaches_at < expected_at then 'at risk'
        else 'fresh'
    end as state
from promised;
comment on view ops.model_freshness is
    'One row per model with a promise: how old it is now, and whether the promise holds.';
comment on column ops.model_freshness.age_seconds is
    'Seconds since reflects_until: what came in later is not in it yet.';
comment on column ops.model_freshness.promised_seconds is
    'Largest age; where is_after_slot, the time that a run has after its slot.';
comment on column ops.model_freshness.breaches_at is
    'When the promise is broken unless a run is done by then.';
comment on column ops.model_freshness.state is
    'fresh, at risk = the run is expected to be done too late, breached, never built.';
"""

DOWN = """
drop view ops.model_freshness;
drop table ops.model_states;
drop table ops.node_runs;
drop table ops.runs;
drop table ops.refresh_groups;
"""


def upgrade() -> None:
    op.execute(UP)


def downgrade() -> None:
    op.execute(DOWN)
