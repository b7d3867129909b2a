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
        work_days.date_day,
        work_days.week_start,
        work_days.month,
        work_days.as_of_date,
        work_days.as_of_week,
        work_days.as_of_month,
        work_days.first_week_end
    from roster
    inner join bounded_work_days as work_days
        on
            roster.source_system = work_days.source_system
            and roster.project_id = work_days.project_id
            and roster.active_from <= work_days.date_day
            and (roster.active_to is null or work_days.date_day <= roster.active_to)
),

rep_periods as (
    {%- for period, start in [('day', 'date_day'), ('week', 'week_start'), ('month', 'month')] %}
    select distinct
        source_system,
        project_id,
        rep_id,
        team_id,
        cast('{{ period }}' as {{ type_label() }}) as period_type,
        {{ start }} as period_start
    from rep_days
    where
        {{ start }} <= as_of_{{ 'date' if period == 'day' else period }}
        {%- if period == 'month' %}
        and month >= cast({{ dbt.date_trunc('month', 'first_week_end') }} as date)
        {%- endif %}
    {%- if not loop.last %}
    union all
    {%- endif %}
    {%- endfor %}
),

grouped as (
    select
        source_system,
        project_id,
        {{ subject_columns() | indent(8) }},
        period_type,
        period_start,
        count(distinct rep_id) as active_reps
    from rep_periods
    {{ group_by_subject(['period_type', 'period_start']) | indent(4) }}
),

-- Reps without a team are no team.
final as (
    select
        source_system,
        project_id,
        subject_type,
        subject_id,
        period_type,
        period_start,
        active_reps
    from grouped
    where not (subject_type = 'team' and subject_id = 'unassigned')
)

select * from final
