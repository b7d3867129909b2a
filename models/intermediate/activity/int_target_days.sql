{{ config(materialized='table', post_hook='{{ gather_statistics(this) }}') }}

with

targets as (
    select * from {{ ref('base_settings__kpi_targets') }}
),

roster as (
    select * from {{ ref('int_roster') }}
),

work_days as (
    select * from {{ ref('int_work_days') }}
    where is_working_day = 1
),

-- What a working day has to bring, if the target counted on each day of its week or month.
daily_targets as (
    select
        targets.source_system,
        targets.project_id,
        targets.kpi,
        targets.period as period_type,
        targets.currency,
        targets.subject_type,
        targets.subject_id,
        work_days.date_day,
        work_days.week_start,
        work_days.month,
        round(
            cast(targets.target as {{ type_number() }})
            / case targets.period
                when 'week' then work_days.working_days_in_week
                else work_days.working_days_in_month
            end,
            12
        ) as target_of_day
    from targets
    inner join work_days
        on
            targets.source_system = work_days.source_system
            and targets.project_id = work_days.project_id
            and targets.effective_from <= work_days.date_day
            and (targets.effective_to is null or targets.effective_to > work_days.date_day)
),

rep_days as (
    select
        daily_targets.*,
        roster.rep_id,
        roster.team_id
    from daily_targets
    inner join roster
        on
            daily_targets.source_system = roster.source_system
            and daily_targets.project_id = roster.project_id
            and daily_targets.date_day >= roster.active_from
            and (roster.active_to is null or daily_targets.date_day <= roster.active_to)
    where
        daily_targets.subject_type = 'rep'
        and (daily_targets.subject_id is null or daily_targets.subject_id = roster.rep_id)
),

own_targets as (
    select * from daily_targets
    where subject_id is not null or subject_type = 'all'
),

-- One of their own goes before the one of every rep.
targets_of_reps as (
    select rep_days.*
    from rep_days
    left join own_targets
        on
            rep_days.source_system = own_targets.source_system
            and rep_days.project_id = own_targets.project_id
            and rep_days.rep_id = own_targets.subject_id
            and rep_days.kpi = own_targets.kpi
            and rep_days.period_type = own_targets.period_type
            and coalesce(rep_days.currency, '') = coalesce(own_targets.currency, '')
            and rep_days.date_day = own_targets.date_day
            and own_targets.subject_type = 'rep'
    where rep_days.subject_id is not null or own_targets.subject_id is null
),

sums as (
    select
        source_system,
        project_id,
        team_id,
        kpi,
        period_type,
        currency,
        date_day,
        week_start,
        month,
        sum(target_of_day) as target_of_day
    from targets_of_reps
    group by
        date_day,
        week_start,
        month,
        team_id,
        kpi,
        period_type,
        currency,
        project_id,
        source_system
),

sums_of_reps as (
    select
        source_system,
        project_id,
        cast('team' as {{ type_label() }}) as subject_type,
        team_id as subject_id,
        kpi,
        period_type,
        currency,
        date_day,
        week_start,
        month,
        target_of_day
    from sums
    union all
    select
        source_system,
        project_id,
        cast('all' as {{ type_label() }}) as subject_type,
        cast('all' as {{ type_label() }}) as subject_id,
        kpi,
        period_type,
        currency,
        date_day,
        week_start,
        month,
        sum(target_of_day) as target_of_day
    from sums
    group by
        source_system,
        project_id,
        kpi,
        period_type,
        currency,
        date_day,
        week_start,
        month
),

-- A team, or all, may have a target of its own; it goes before the sum of those of its reps.
unstated_sums as (
    select sums_of_reps.*
    from sums_of_reps
    left join own_targets
        on
            sums_of_reps.source_system = own_targets.source_system
            and sums_of_reps.project_id = own_targets.project_id
            and sums_of_reps.subject_type = own_targets.subject_type
            and sums_of_reps.subject_id = coalesce(own_targets.subject_id, 'all')
            and sums_of_reps.kpi = own_targets.kpi
            and sums_of_reps.period_type = own_targets.period_type
            and coalesce(sums_of_reps.currency, '') = coalesce(own_targets.currency, '')
            and sums_of_reps.date_day = own_targets.date_day
    where own_targets.subject_type is null
),

final as (
    select
        source_system,
        project_id,
        cast('rep' as {{ type_label() }}) as subject_type,
        rep_id as subject_id,
        kpi,
        period_type,
        currency,
        cast('own' as {{ type_label() }}) as target_origin,
        target_of_day,
        date_day,
        week_start,
        month
    from targets_of_reps
    union all
    select
        source_system,
        project_id,
        subject_type,
        subject_id,
        kpi,
        period_type,
        currency,
        cast('sum of reps' as {{ type_label() }}) as target_origin,
        target_of_day,
        date_day,
        week_start,
        month
    from unstated_sums
    union all
    select
        source_system,
        project_id,
        subject_type,
        coalesce(subject_id, 'all') as subject_id,
        kpi,
        period_type,
        currency,
        cast('own' as {{ type_label() }}) as target_origin,
        target_of_day,
        date_day,
        week_start,
        month
    from own_targets
    where subject_type != 'rep'
)

select * from final
