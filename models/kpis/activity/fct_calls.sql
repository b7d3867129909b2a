{{ config(materialized='view') }}

with

calls as (
    select * from {{ ref('int_calls') }}
),

roster as (
    select * from {{ ref('int_roster') }}
),

projects as (
    select * from {{ ref('stg_projects') }}
),

{%- set as_of_day = local_day(as_of(), "coalesce(projects.timezone, 'UTC')") %}

final as (
    select
        calls.activity_key,
        calls.counted_by,
        calls.source_system,
        calls.project_id,
        calls.activity_id,
        calls.rep_id,
        coalesce(roster.team_id, 'unassigned') as team_id,
        calls.excluded_reason,
        calls.record_origin,
        calls.call_hour,
        {{ weekday_of_day(day_of_date('calls.call_date')) }} as weekday,
        calls.is_booked,
        calls.is_due,
        calls.is_held,
        calls.is_conducted,
        case
            when
                {{ day_of_date('calls.call_date') }}
                between {{ as_of_day }} - {{ var('activity_window_days') }} + 1 and {{ as_of_day }}
                then 1
            else 0
        end as is_in_window,
        calls.call_date,
        {{ week_of_date('calls.call_date') }} as call_week,
        {{ month_of_date('calls.call_date') }} as call_month,
        calls.counted_at,
        {{ built_at() }} as updated_at
    from calls
    left join projects
        on
            calls.source_system = projects.source_system
            and calls.project_id = projects.project_id
    left join roster
        on
            {{ in_team_on('calls', 'calls.call_date') | indent(12) }}
)

select * from final
