{{ config(materialized='table', post_hook='{{ gather_statistics(this) }}') }}

with

made_for as (
    select * from {{ ref('int_forecast_days') }}
    where {{ forecast_is_to_build() }}
),

-- From the first day on that a forecast learns from.
bounds as (
    select
        source_system,
        project_id,
        min(made_for_day) - {{ forecast_learned_days() }} as first_day
    from made_for
    group by source_system, project_id
),

-- A query that several read PostgreSQL would write to a file first, whole.
awaited as (
    {%- for kpi, dates in forecast_steps().items() %}
    select
        source_system,
        project_id,
        rep_id,
        '{{ kpi }}' as kpi,
        sublist_key is not null as is_of_list,
        {{ day_of_date(dates.entry) }} as entry_day,
        {{ day_of_date(dates.event) }} as event_day,
        {{ day_of_date('closed_date') }} as closed_day
    from {{ ref('int_pipeline_items') }}
    where excluded_reason is null and {{ dates.entry }} is not null
    {%- if not loop.last %}
    union all
    {%- endif %}
    {%- endfor %}
),

final as (
    select
        awaited.source_system,
        awaited.project_id,
        awaited.rep_id,
        awaited.kpi,
        awaited.is_of_list,
        awaited.entry_day,
        awaited.event_day,
        awaited.closed_day,
        cast(count(*) as integer) as items
    from awaited
    inner join bounds
        on
            awaited.source_system = bounds.source_system
            and awaited.project_id = bounds.project_id
            and coalesce(awaited.event_day, awaited.entry_day) >= bounds.first_day
    group by
        awaited.source_system,
        awaited.project_id,
        awaited.rep_id,
        awaited.kpi,
        awaited.is_of_list,
        awaited.entry_day,
        awaited.event_day,
        awaited.closed_day
)

select * from final
