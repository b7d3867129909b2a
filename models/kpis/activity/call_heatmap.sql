{{ config(
    materialized=flow_materialized(),
    incremental_strategy='by_weekday',
    on_schema_change='append_new_columns',
    pre_hook='{{ begin_periods(call_heatmap_parts(), name_parts()) }}',
    post_hook='{{ remember_periods() }}',
) }}

with

call_hours as (
    select * from {{ ref('int_call_hours') }}
),

work_days as (
    select * from {{ ref('int_work_days') }}
    where
        {{ is_in_activity_window() | indent(8) }}
        and {{ weekday_is_to_build('weekday') }}
),

roster as (
    select * from {{ ref('int_roster') }}
),

subjects as (
    select * from {{ ref('int_subjects') }}
),

placed as (
    select
        call_hours.*,
        work_days.weekday,
        coalesce(roster.team_id, 'unassigned') as team_id
    from call_hours
    inner join work_days
        on
            call_hours.source_system = work_days.source_system
            and call_hours.project_id = work_days.project_id
            and call_hours.call_date = work_days.date_day
    left join roster
        on
            {{ in_team_on('call_hours', 'call_hours.call_date') | indent(12) }}
),

summed as (
    select
        source_system,
        project_id,
        {{ subject_columns() | indent(8) }},
        weekday,
        call_hour,
        cast(sum(booked) as bigint) as booked,
        cast(sum(due) as bigint) as due,
        cast(sum(held) as bigint) as held,
        cast(sum(conducted) as bigint) as conducted
    from placed
    {{ group_by_subject(['weekday', 'call_hour']) | indent(4) }}
),

final as (
    select
        summed.source_system,
        summed.project_id,
        summed.subject_type,
        summed.subject_id,
        coalesce(subjects.subject_name, summed.subject_id) as subject_name,
        summed.weekday,
        summed.call_hour as hour,
        summed.booked,
        summed.due,
        summed.held,
        summed.conducted,
        {{ pct('summed.held', 'summed.due') }} as held_rate_pct,
        {{ built_at() }} as updated_at
    from summed
    left join subjects
        on
            {{ same_subject('summed', 'subjects') | indent(12) }}
)

select * from final
