{{ config(materialized='view') }}

with

visits as (
    select * from {{ ref('int_order_group_visits') }}
    where left_at <= {{ as_of() }}
),

projects as (
    select * from {{ ref('stg_projects') }}
),

{%- set period_types = ['day', 'week', 'month'] %}

final as (
    {%- for period_type in period_types %}
    select
        visits.source_system,
        visits.project_id,
        visits.order_id,
        visits.group_visit_number,
        cast('{{ period_type }}' as {{ type_label() }}) as period_type,
        {{ local_period(
            "'" ~ period_type ~ "'", 'visits.left_at', "coalesce(projects.timezone, 'UTC')"
        ) }} as period_start,
        coalesce(visits.stage_group_id, 'unassigned') as stage_group_id,
        visits.sla_state,
        visits.is_urgent,
        {{ flag('visits.sla_state is not null') }} as is_judged,
        {%- for state in ['ok', 'near', 'over'] %}
        {{ flag("visits.sla_state = '" ~ state ~ "'") }} as is_{{ state }},
        {%- endfor %}
        {{ flag('visits.seconds is null') }} as has_impossible_duration,
        visits.seconds,
        visits.working_seconds,
        visits.paused_seconds,
        visits.entered_at,
        visits.left_at,
        {{ built_at() }} as updated_at
    from visits
    left join projects
        on
            visits.source_system = projects.source_system
            and visits.project_id = projects.project_id
    {%- if not loop.last %}
    union all
    {%- endif %}
    {%- endfor %}
)

select * from final
