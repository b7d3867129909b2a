{{ config(
    materialized='table',
    post_hook=['{{ gather_statistics(this) }}', '{{ begin_forecasts() }}'],
) }}
{{- read_by_hooks('int_forecast_sales') }}
{{- read_by_hooks('int_roster') }}

{#- Days of a month whose forecast is made again, to be held against what came. -#}
{%- set looked_back_on = [1, 8, 15, 22] -%}

with

work_days as (
    select
        source_system,
        project_id,
        month,
        {{ day_of_date('date_day') }} as day,
        {{ day_of_date('month') }} as first_of_month,
        {{ day_of_date('as_of_date') }} as today
    from {{ ref('int_work_days') }}
),

items as (
    select * from {{ ref('int_pipeline_items') }}
    where excluded_reason is null
),

months as (
    select
        source_system,
        project_id,
        month,
        min(first_of_month) as first_of_month,
        max(day) as last_of_month
    from work_days
    group by source_system, project_id, month
),

-- One date that cannot be, as of 1948, does not make arrivals known for all the years since.
first_entries as (
    select
        {%- for kpi, dates in forecast_steps().items() %}
        min(
            case when {{ dates.entry }} >= cast('2000-01-01' as date) then {{ dates.entry }} end
        ) as first_of_{{ kpi }},
        {%- endfor %}
        source_system,
        project_id
    from items
    group by source_system, project_id
),

known_since as (
    select
        source_system,
        project_id,
        {{ day_of_date('least(first_of_' ~ forecast_steps() | join(', first_of_') ~ ')') }}
            as first_day
    from first_entries
),

-- Up to the end of the day before: what the day itself brings is part of what is forecast.
final as (
    select
        months.source_system,
        months.project_id,
        months.month,
        work_days.day as made_for_day,
        months.first_of_month,
        months.last_of_month,
        work_days.day = work_days.today as is_current
    from work_days
    inner join months
        on
            work_days.source_system = months.source_system
            and work_days.project_id = months.project_id
            and work_days.month = months.month
    inner join known_since
        on
            work_days.source_system = known_since.source_system
            and work_days.project_id = known_since.project_id
    where
        work_days.day = work_days.today
        -- From then on the time is full that arrivals are learned from.
        or (
            months.last_of_month < work_days.today
            and work_days.today - months.last_of_month <= {{ var('backtest_window_days') }}
            and work_days.day - known_since.first_day >= {{ forecast_recent_days() }}
            and work_days.day - work_days.first_of_month + 1 in (
                {{ looked_back_on | join(', ') }}
            )
        )
)

select * from final
