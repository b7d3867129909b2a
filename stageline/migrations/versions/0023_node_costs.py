"""How many rows a model holds, what it costs, and whether it got slower."""

from alembic import op

revision = "0023"
down_revision = "0022"
branch_labels = None
depends_on = None

UP = """
alter table ops.node_runs add column rows bigint check (rows >= 0);
comment on column ops.node_runs.rows is
    'Rows of its table after it, as the server counts them; null for a view or a test.';

create view ops.node_costs as
with

ranked as (
    select
        node_runs.node_kind,
        node_runs.node_name,
        node_runs.seconds,
        node_runs.rows,
        builds.started_at,
        row_number() over (
            partition by node_runs.node_kind, node_runs.node_name order by builds.started_at desc
        ) as nth
    from ops.node_runs
    inner join ops.builds
        on node_runs.build_id = builds.build_id
    where
        node_runs.status = 'success'
        and node_runs.node_kind in ('model', 'seed', 'snapshot')
        and builds.started_at > now() - interval '14 days'
),

costs as (
    select
        node_kind,
        node_name,
        count(*) as runs,
        coalesce(sum(seconds) filter (where started_at > now() - interval '1 day'), 0)
            as day_seconds,
        count(*) filter (where nth > 5) as runs_before,
        percentile_cont(0.5) within group (order by seconds) filter (where nth > 5)
            as usual_seconds,
        percentile_cont(0.5) within group (order by seconds) filter (where nth <= 5)
            as lately_seconds,
        max(rows) filter (where nth = 1) as rows
    from ranked
    group by node_kind, node_name
)

select
    node_kind,
    node_name,
    runs,
    day_seconds,
    usual_seconds,
    lately_seconds,
    rows,
    runs_before >= 10
    and lately_seconds > 2 * usual_seconds
    and lately_seconds > usual_seconds + 5 as is_slower
from costs;
comment on view ops.node_costs is
    'One row per model, seed and snapshot that was built well within 14 days: what it costs.';
comment on column ops.node_costs.runs is 'How often it was built well within 14 days.';
comment on column ops.node_costs.day_seconds is 'What it took within the last 24 hours, together.';
comment on column ops.node_costs.usual_seconds is
    'Median of what it took, its last five runs left out; null where there were no others.';
comment on column ops.node_costs.lately_seconds is 'Median of what its last five runs took.';
comment on column ops.node_costs.rows is 'Rows of its table after its last run; null for a view.';
comment on column ops.node_costs.is_slower is
    'Whether it takes more than twice as long as usual lately, and 5 seconds more; judged by ten'
    ' runs before the last five or more.';
"""

DOWN = """
drop view ops.node_costs;
alter table ops.node_runs drop column rows;
"""


def upgrade() -> None:
    op.execute(UP)


def downgrade() -> None:
    op.execute(DOWN)
