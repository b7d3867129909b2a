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

periods as (
    {%- for period, start in [('week', 'week_start'), ('month', 'month')] %}
    select
        source_system,
        project_id,
        cast('{{ period }}' as {{ type_label() }}) as period_type,
        {{ start }} as period_start,
        min(date_day) as first_day,
        max(date_day) as last_day
    from bounded_work_days
    where
        {{ start }} <= as_of_{{ period }}
        {%- if period == 'month' %}
        and month >= cast({{ dbt.date_trunc('month', 'first_week_end') }} as date)
        {%- endif %}
    group by
        source_system,
        project_id,
        {{ start }}
    {%- if not loop.last %}
    union all
    {%- endif %}
    {%- endfor %}
),

rep_periods as (
    select distinct
        roster.source_system,
        roster.project_id,
        roster.rep_id,
        roster.team_id,
        periods.period_type,
        periods.period_start
    from roster
    inner join periods
        on
            roster.source_system = periods.source_system
            and roster.project_id = periods.project_id
            and roster.active_from <= periods.last_day
            and (roster.active_to is null or roster.active_to >= periods.first_day)
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
