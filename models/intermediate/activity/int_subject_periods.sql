{{ config(materialized='table', post_hook='{{ gather_statistics(this) }}') }}

with

roster as (
    select * from {{ ref('int_roster') }}
),

work_days as (
    select * from {{ ref('int_work_days') }}
),

-- The week in which the first month begins may begin in the month before, of which nothing is told.
-- It ends in the first month.
bounded_work_days as (
    select
        work_days.*,
        {{ date_of_day(day_of_date(
            'min(date_day) over (partition by source_system, project_id)'
        ) ~ ' + 6') }} as first_week_end
    from work_days
),

rep_days as (
    select
        roster.source_system,
        roster.project_id,
        roster.rep_id,
        roster.team_id,
        work_days.week_start,
        work_days.month,
        work_days.as_of_week,
        work_days.as_of_month,
        work_days.first_week_end
    from roster
    inner join bounded_work_days as work_days
        on
            roster.source_system = work_days.source_system
            and roster.project_id = work_days.project_id
            and roster.active_from <= work_days.date_day
            and (roster.active_to is null or roster.active_to >= work_days.date_day)
),

rep_periods as (
    {%- for period, start in [('week', 'week_start'), ('month', 'month')] %}
    select distinct
        source_system,
        project_id,
        rep_id,
        team_id,
        cast('{{ period }}' as {{ type_label() }}) as period_type,
        {{ start }} as period_start
    from rep_days
    where
        {{ start }} <= as_of_{{ period }}
        {%- if period == 'month' %}
        and month >= cast({{ dbt.date_trunc('month', 'first_week_end') }} as date)
        {%- endif %}
    {%- if not loop.last %}
    union all
    {%- endif %}
    {%- endfor %}
),

-- Who changes teams within a period is one rep all the same.
reps as (
    select
        source_system,
        project_id,
        rep_id,
        period_type,
        period_start
    from rep_periods
    group by
        period_start,
        rep_id,
        period_type,
        project_id,
        source_system
),

-- Reps without a team are no team.
final as (
    select
        source_system,
        project_id,
        cast('rep' as {{ type_label() }}) as subject_type,
        rep_id as subject_id,
        period_type,
        period_start,
        cast(1 as bigint) as active_reps
    from reps
    union all
    select
        source_system,
        project_id,
        cast('team' as {{ type_label() }}) as subject_type,
        team_id as subject_id,
        period_type,
        period_start,
        count(*) as active_reps
    from rep_periods
    where team_id != 'unassigned'
    group by
        source_system,
        project_id,
        team_id,
        period_type,
        period_start
    union all
    select
        source_system,
        project_id,
        cast('all' as {{ type_label() }}) as subject_type,
        cast('all' as {{ type_label() }}) as subject_id,
        period_type,
        period_start,
        count(*) as active_reps
    from reps
    group by
        source_system,
        project_id,
        period_type,
        period_start
)

select * from final
