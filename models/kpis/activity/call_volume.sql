{{ config(
    materialized=flow_materialized(),
    incremental_strategy='by_week',
    on_schema_change='append_new_columns',
    pre_hook='{{ begin_periods(call_volume_parts(), name_parts()) }}',
    post_hook='{{ remember_periods() }}',
) }}

with

call_hours as (
    select * from {{ ref('int_call_hours') }}
    where {{ week_is_to_build('call_date') }}
),

roster as (
    select * from {{ ref('int_roster') }}
),

work_days as (
    select * from {{ ref('int_work_days') }}
    where {{ week_is_to_build('date_day') }}
),

subject_weeks as (
    select * from {{ ref('int_subject_periods') }}
    where period_type = 'week' and {{ week_is_to_build('period_start') }}
),

target_candidates as (
    select
        target_ranges.*,
        case period_type when 'week' then 1 else 2 end as place
    from {{ ref('int_target_ranges') }} as target_ranges
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
        cast(sum(booked) as integer) as booked,
        cast(sum(due) as integer) as due,
        cast(sum(held) as integer) as held,
        cast(sum(conducted) as integer) as conducted,
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
            and work_days.date_day <= work_days.as_of_date
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
        cast(sum(booked) as integer) as booked,
        cast(sum(due) as integer) as due,
        cast(sum(held) as integer) as held,
        cast(sum(conducted) as integer) as conducted,
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
        cast(sum(booked) as integer) as booked,
        cast(sum(due) as integer) as due,
        cast(sum(held) as integer) as held,
        cast(sum(conducted) as integer) as conducted,
        date_day
    from rep_days
    group by
        source_system,
        project_id,
        date_day
),

parts_of_weeks as (
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

weeks as (
    select
        source_system,
        project_id,
        subject_type,
        subject_id,
        cast(sum(booked) as bigint) as booked,
        cast(sum(due) as bigint) as due,
        cast(sum(held) as bigint) as held,
        cast(sum(conducted) as bigint) as conducted,
        week_start
    from parts_of_weeks
    group by
        week_start,
        subject_id,
        subject_type,
        project_id,
        source_system
),

-- A target by week goes before one by month.
targets as (
    {{ target_ranges(
        'target_candidates', ['source_system', 'project_id', 'subject_type', 'subject_id']
    ) | indent(4) }}
),

days as (
    select
        source_system,
        project_id,
        date_day,
        week_start,
        is_working_day,
        working_days_before,
        working_days_in_week,
        working_days_in_month,
        min(date_day) over (partition by source_system, project_id, week_start, month)
            as first_day,
        max(date_day) over (partition by source_system, project_id, week_start, month) as last_day
    from work_days
),

-- On each working day of a week that lies in one month a target asks for the same.
target_parts as (
    select
        targets.source_system,
        targets.project_id,
        targets.subject_type,
        targets.subject_id,
        targets.target,
        case targets.place when 1 then days.working_days_in_week else days.working_days_in_month end
            as working_days,
        days.week_start,
        greatest(targets.day_from, days.first_day) as first_day,
        least(targets.day_to, days.last_day) as last_day
    from targets
    inner join days
        on
            targets.source_system = days.source_system
            and targets.project_id = days.project_id
            and days.date_day = days.first_day
            and targets.day_from <= days.last_day
            and (targets.day_to is null or targets.day_to >= days.first_day)
    {{ computed_once() }}
),

numbered_target_parts as (
    {{ numbered_parts('target_parts', 'days') | indent(4) }}
),

targets_of_weeks as (
    select
        source_system,
        project_id,
        subject_type,
        subject_id,
        {{ target_of_days('target', 'working_days', '(days_until - days_before)') }} as target,
        sum(days_until - days_before) as target_working_days,
        week_start
    from numbered_target_parts
    where days_until > days_before
    group by
        week_start,
        subject_id,
        subject_type,
        project_id,
        source_system
),

counted as (
    select
        subject_days.source_system,
        subject_days.project_id,
        subject_days.subject_type,
        subject_days.subject_id,
        cast('day' as {{ type_label() }}) as period_type,
        subject_days.booked,
        subject_days.due,
        subject_days.held,
        subject_days.conducted,
        case
            when days.is_working_day = 1
                then round(
                    targets.target
                    / case targets.place
                        when 1 then days.working_days_in_week
                        else days.working_days_in_month
                    end,
                    4
                )
        end as target,
        case when targets.target is not null then coalesce(days.is_working_day, 0) else 0 end
            as target_working_days,
        subject_days.date_day as period_start
    from subject_days
    left join days
        on
            subject_days.source_system = days.source_system
            and subject_days.project_id = days.project_id
            and subject_days.date_day = days.date_day
    left join targets
        on
            {{ same_subject('subject_days', 'targets') | indent(12) }}
            and subject_days.date_day >= targets.day_from
            and (targets.day_to is null or subject_days.date_day <= targets.day_to)
    union all
    select
        weeks.source_system,
        weeks.project_id,
        weeks.subject_type,
        weeks.subject_id,
        cast('week' as {{ type_label() }}) as period_type,
        weeks.booked,
        weeks.due,
        weeks.held,
        weeks.conducted,
        targets_of_weeks.target,
        coalesce(targets_of_weeks.target_working_days, 0) as target_working_days,
        weeks.week_start as period_start
    from weeks
    left join targets_of_weeks
        on
            {{ same_subject('weeks', 'targets_of_weeks') | indent(12) }}
            and weeks.week_start = targets_of_weeks.week_start
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
        cast(counted.target as {{ type_money() }}) as target,
        cast(counted.target_working_days as bigint) as target_working_days,
        {{ pct('counted.conducted', 'counted.target') }} as attainment_pct,
        {{ built_at() }} as updated_at
    from counted
    left join subjects
        on
            {{ same_subject('counted', 'subjects') | indent(12) }}
)

select * from final
