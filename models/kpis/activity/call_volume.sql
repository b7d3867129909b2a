with

call_hours as (
    select * from {{ ref('int_call_hours') }}
),

roster as (
    select * from {{ ref('int_roster') }}
),

work_days as (
    select * from {{ ref('int_work_days') }}
    where date_day <= as_of_date
),

subject_weeks as (
    select * from {{ ref('int_subject_periods') }}
    where period_type = 'week'
),

target_days as (
    select * from {{ ref('int_target_days') }}
    where kpi = 'calls'
),

subjects as (
    select * from {{ ref('int_subjects') }}
),

called_days as (
    select
        source_system,
        project_id,
        rep_id,
        cast(sum(booked) as bigint) as booked,
        cast(sum(due) as bigint) as due,
        cast(sum(held) as bigint) as held,
        cast(sum(conducted) as bigint) as conducted,
        call_date
    from call_hours
    group by
        call_date,
        rep_id,
        project_id,
        source_system
),

-- Each active day, and each with calls, in the team of that day.
rep_days as (
    select
        called_days.source_system,
        called_days.project_id,
        called_days.rep_id,
        coalesce(roster.team_id, 'unassigned') as team_id,
        called_days.booked,
        called_days.due,
        called_days.held,
        called_days.conducted,
        1 as has_calls,
        called_days.call_date as date_day
    from called_days
    left join roster
        on
            {{ in_team_on('called_days', 'called_days.call_date') | indent(12) }}
    union all
    select
        roster.source_system,
        roster.project_id,
        roster.rep_id,
        roster.team_id,
        0 as booked,
        0 as due,
        0 as held,
        0 as conducted,
        0 as has_calls,
        work_days.date_day
    from roster
    inner join work_days
        on
            roster.source_system = work_days.source_system
            and roster.project_id = work_days.project_id
            and roster.active_from <= work_days.date_day
            and (roster.active_to is null or roster.active_to >= work_days.date_day)
    left join called_days
        on
            roster.source_system = called_days.source_system
            and roster.project_id = called_days.project_id
            and roster.rep_id = called_days.rep_id
            and work_days.date_day = called_days.call_date
    where called_days.rep_id is null
),

-- Reps without a team are no team, but for their calls.
team_days as (
    select
        source_system,
        project_id,
        team_id,
        cast(sum(booked) as bigint) as booked,
        cast(sum(due) as bigint) as due,
        cast(sum(held) as bigint) as held,
        cast(sum(conducted) as bigint) as conducted,
        date_day
    from rep_days
    where has_calls = 1 or team_id != 'unassigned'
    group by
        source_system,
        project_id,
        team_id,
        date_day
),

subject_days as (
    select
        source_system,
        project_id,
        cast('rep' as {{ type_label() }}) as subject_type,
        rep_id as subject_id,
        booked,
        due,
        held,
        conducted,
        date_day
    from rep_days
    union all
    select
        source_system,
        project_id,
        cast('team' as {{ type_label() }}) as subject_type,
        team_id as subject_id,
        booked,
        due,
        held,
        conducted,
        date_day
    from team_days
    union all
    select
        source_system,
        project_id,
        cast('all' as {{ type_label() }}) as subject_type,
        cast('all' as {{ type_label() }}) as subject_id,
        cast(sum(booked) as bigint) as booked,
        cast(sum(due) as bigint) as due,
        cast(sum(held) as bigint) as held,
        cast(sum(conducted) as bigint) as conducted,
        date_day
    from rep_days
    group by
        source_system,
        project_id,
        date_day
),

weeks as (
    select
        source_system,
        project_id,
        subject_type,
        subject_id,
        booked,
        due,
        held,
        conducted,
        {{ week_of_date('date_day') }} as week_start
    from subject_days
    union all
    select
        source_system,
        project_id,
        subject_type,
        subject_id,
        0 as booked,
        0 as due,
        0 as held,
        0 as conducted,
        period_start as week_start
    from subject_weeks
),

counted as (
    select
        source_system,
        project_id,
        subject_type,
        subject_id,
        cast('day' as {{ type_label() }}) as period_type,
        booked,
        due,
        held,
        conducted,
        date_day as period_start
    from subject_days
    union all
    select
        source_system,
        project_id,
        subject_type,
        subject_id,
        cast('week' as {{ type_label() }}) as period_type,
        cast(sum(booked) as bigint) as booked,
        cast(sum(due) as bigint) as due,
        cast(sum(held) as bigint) as held,
        cast(sum(conducted) as bigint) as conducted,
        week_start as period_start
    from weeks
    group by
        week_start,
        subject_id,
        subject_type,
        project_id,
        source_system
),

targets_by_week as (
    select * from target_days
    where period_type = 'week'
),

-- A target by week goes before one by month.
chosen_target_days as (
    select * from targets_by_week
    union all
    select target_days.*
    from target_days
    left join targets_by_week
        on
            {{ same_subject('target_days', 'targets_by_week') | indent(12) }}
            and target_days.date_day = targets_by_week.date_day
    where target_days.period_type = 'month' and targets_by_week.date_day is null
),

targets as (
    select
        source_system,
        project_id,
        subject_type,
        subject_id,
        cast('day' as {{ type_label() }}) as period_type,
        date_day as period_start,
        round(target_of_day, 4) as target,
        1 as target_working_days
    from chosen_target_days
    union all
    select
        source_system,
        project_id,
        subject_type,
        subject_id,
        cast('week' as {{ type_label() }}) as period_type,
        week_start as period_start,
        {{ target_of_days('target_of_day') }} as target,
        count(*) as target_working_days
    from chosen_target_days
    group by
        week_start,
        subject_id,
        subject_type,
        project_id,
        source_system
),

final as (
    select
        counted.source_system,
        counted.project_id,
        counted.subject_type,
        counted.subject_id,
        coalesce(subjects.subject_name, counted.subject_id) as subject_name,
        counted.period_type,
        counted.period_start,
        counted.booked,
        counted.due,
        counted.held,
        counted.due - counted.held as missed,
        counted.conducted,
        {{ pct('counted.held', 'counted.due') }} as held_rate_pct,
        cast(targets.target as {{ type_money() }}) as target,
        coalesce(targets.target_working_days, 0) as target_working_days,
        {{ pct('counted.conducted', 'targets.target') }} as attainment_pct,
        {{ built_at() }} as updated_at
    from counted
    left join targets
        on
            {{ same_subject('counted', 'targets') | indent(12) }}
            and counted.period_type = targets.period_type
            and counted.period_start = targets.period_start
    left join subjects
        on
            {{ same_subject('counted', 'subjects') | indent(12) }}
)

select * from final
