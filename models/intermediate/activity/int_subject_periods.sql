{{ config(materialized='table', post_hook='{{ gather_statistics(this) }}') }}

with

roster as (
    select * from {{ ref('int_roster') }}
),

work_days as (
    select * from {{ ref('int_work_days') }}
),

periods as (
    {{ periods_of('work_days') | indent(4) }}
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
