{{ config(
    materialized=flow_materialized(),
    incremental_strategy='by_period',
    on_schema_change='append_new_columns',
    post_hook=['{{ gather_statistics(this) }}', '{{ remember_flow_position() }}', '{{ forget_touched() }}'],
) }}

with

projects as (
    {{ projects_to_build() }}
),

visits as (
    select * from {{ ref('int_order_group_visits') }}
    where
        left_at <= {{ as_of() }}
        and left_at >= (select min(projects.read_since) from projects)
),

{%- set period_types = ['day', 'week', 'month'] %}

period_types as (
    {%- for period_type in period_types %}
    select cast('{{ period_type }}' as {{ type_label() }}) as period_type
    {%- if not loop.last %}
    union all
    {%- endif %}
    {%- endfor %}
),

zoned_visits as (
    select
        visits.*,
        coalesce(projects.timezone, 'UTC') as timezone
    from visits
    left join projects
        on
            visits.source_system = projects.source_system
            and visits.project_id = projects.project_id
),

placed as (
    select
        zoned_visits.*,
        period_types.period_type,
        {{ local_period(
            'period_types.period_type', 'zoned_visits.left_at', 'zoned_visits.timezone'
        ) }} as period_start
    from zoned_visits
    cross join period_types
),

summed as (
    select
        source_system,
        project_id,
        period_type,
        period_start,
        stage_group_id,
        max(group_name) as group_name,
        is_urgent,
        count(distinct order_id) as orders,
        count(*) as visits,
        sum({{ flag('seconds is null') }}) as impossible_durations,
        count(sla_state) as judged_visits,
        count(*) - count(sla_state) as unjudged_visits,
        sum({{ flag("sla_state = 'ok'") }}) as ok_visits,
        sum({{ flag("sla_state = 'near'") }}) as near_visits,
        sum({{ flag("sla_state = 'over'") }}) as over_visits,
        {%- for form in ['', 'working_'] %}
        cast(sum({{ form }}seconds) as bigint) as total_{{ form }}seconds,
        {{ mean_seconds(form ~ 'seconds') }} as avg_{{ form }}seconds,
        {{ percentile_seconds(0.5, form ~ 'seconds') }} as p50_{{ form }}seconds,
        {{ percentile_seconds(0.85, form ~ 'seconds') }} as p85_{{ form }}seconds,
        {{ percentile_seconds(0.95, form ~ 'seconds') }} as p95_{{ form }}seconds,
        {%- endfor %}
        cast(sum(paused_seconds) as bigint) as total_paused_seconds
    from placed
    -- Sorted in this order: the more a key tells apart, and the cheaper it compares, the earlier.
    group by
        period_start,
        stage_group_id,
        project_id,
        period_type,
        is_urgent,
        source_system
),

-- What is read reaches into periods that have not changed.
to_keep as (
    select summed.*
    from summed
    left join projects
        on
            summed.source_system = projects.source_system
            and summed.project_id = projects.project_id
    where
        projects.since is null
        or summed.period_start >= {{ local_period(
            'summed.period_type', 'projects.since', 'projects.timezone'
        ) }}
),

final as (
    select
        source_system,
        project_id,
        period_type,
        period_start,
        coalesce(stage_group_id, 'unassigned') as stage_group_id,
        group_name,
        is_urgent,
        orders,
        visits,
        impossible_durations,
        judged_visits,
        unjudged_visits,
        ok_visits,
        near_visits,
        over_visits,
        {%- for form in ['', 'working_'] %}
        total_{{ form }}seconds,
        avg_{{ form }}seconds,
        p50_{{ form }}seconds,
        p85_{{ form }}seconds,
        p95_{{ form }}seconds,
        {%- endfor %}
        total_paused_seconds,
        {{ pct('ok_visits', 'judged_visits') }} as ok_pct,
        {{ pct('near_visits', 'judged_visits') }} as near_pct,
        {{ pct('over_visits', 'judged_visits') }} as over_pct,
        {{ built_at() }} as updated_at
    from to_keep
)

select * from final
