{#- Days for which a rep that the source does not list is there after the last thing recorded. -#}
{%- set quiet_days = 7 -%}

with

roster as (
    select * from {{ ref('int_roster') }}
),

work_days as (
    select * from {{ ref('int_work_days') }}
),

projects as (
    select * from {{ ref('int_alert_projects') }}
),

leaderboard as (
    select * from {{ ref('bdr_leaderboard') }}
    where subject_type = 'rep' and period_type = 'week'
),

-- Else whoever is not listed would come and go with each call.
spans as (
    select
        roster.source_system,
        roster.project_id,
        roster.rep_id,
        roster.rep_name,
        roster.active_from,
        case
            when roster.is_listed then roster.active_to
            else {{ date_of_day('(' ~ day_of_date('roster.active_to') ~ ' + ' ~ quiet_days ~ ')') }}
        end as active_to
    from roster
    inner join projects
        on
            roster.source_system = projects.source_system
            and roster.project_id = projects.project_id
),

days as (
    select
        spans.source_system,
        spans.project_id,
        spans.rep_id,
        spans.rep_name,
        work_days.as_of_week,
        work_days.working_days_in_week,
        {{ flag('work_days.date_day = work_days.as_of_date') }} as is_today,
        work_days.is_working_day
        * {{ flag('work_days.date_day < work_days.as_of_date') }} as is_gone
    from spans
    inner join work_days
        on
            spans.source_system = work_days.source_system
            and spans.project_id = work_days.project_id
            and spans.active_from <= work_days.date_day
            and (spans.active_to is null or spans.active_to >= work_days.date_day)
    where
        work_days.week_start = work_days.as_of_week
        and work_days.date_day <= work_days.as_of_date
),

weeks as (
    select
        source_system,
        project_id,
        rep_id,
        as_of_week,
        working_days_in_week,
        max(case when is_today = 1 then rep_name end) as rep_name,
        sum(is_gone) as days_gone
    from days
    group by
        source_system,
        project_id,
        rep_id,
        as_of_week,
        working_days_in_week
    having max(is_today) = 1
),

final as (
    select
        weeks.source_system,
        weeks.project_id,
        weeks.rep_id,
        weeks.rep_name,
        weeks.days_gone,
        weeks.working_days_in_week,
        coalesce(leaderboard.calls, 0) as calls,
        cast(coalesce(leaderboard.score, 0) as {{ type_money() }}) as score
    from weeks
    left join leaderboard
        on
            weeks.source_system = leaderboard.source_system
            and weeks.project_id = leaderboard.project_id
            and weeks.rep_id = leaderboard.subject_id
            and weeks.as_of_week = leaderboard.period_start
)

select * from final
