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

-- One of their own goes before the one of every rep.
ranked_targets_of_reps as (
    select
        daily_targets.*,
        roster.rep_id,
        roster.team_id,
        row_number() over (
            partition by
                roster.source_system,
                roster.project_id,
                roster.rep_id,
                daily_targets.kpi,
                daily_targets.period_type,
                daily_targets.currency,
                daily_targets.date_day
            order by case when daily_targets.subject_id is null then 2 else 1 end
        ) as place
    from daily_targets
    inner join roster
        on
            daily_targets.source_system = roster.source_system
            and daily_targets.project_id = roster.project_id
            and (daily_targets.subject_id = roster.rep_id or daily_targets.subject_id is null)
            and daily_targets.date_day >= roster.active_from
            and (roster.active_to is null or daily_targets.date_day <= roster.active_to)
    where daily_targets.subject_type = 'rep'
),

targets_of_reps as (
    select
        source_system,
        project_id,
        {{ subject_columns() | indent(8) }},
        kpi,
        period_type,
        currency,
        date_day,
        week_start,
        month,
        sum(target_of_day) as target_of_day
    from ranked_targets_of_reps
    where place = 1
    {{ group_by_subject([
        'kpi', 'period_type', 'currency', 'date_day', 'week_start', 'month',
    ]) | indent(4) }}
),

-- A team, or all, may have a target of its own; it goes before the sum of those of its reps.
stated as (
    select
        source_system,
        project_id,
        subject_type,
        subject_id,
        kpi,
        period_type,
        currency,
        date_day,
        week_start,
        month,
        target_of_day,
        case when subject_type = 'rep' then 'own' else 'sum of reps' end as target_origin,
        2 as preference
    from targets_of_reps
    union all
    select
        source_system,
        project_id,
        subject_type,
        coalesce(subject_id, 'all') as subject_id,
        kpi,
        period_type,
        currency,
        date_day,
        week_start,
        month,
        target_of_day,
        'own' as target_origin,
        1 as preference
    from daily_targets
    where subject_type in ('team', 'all')
),

ranked as (
    select
        stated.*,
        row_number() over (
            partition by
                source_system,
                project_id,
                subject_type,
                subject_id,
                kpi,
                period_type,
                currency,
                date_day
            order by preference
        ) as place
    from stated
),

final as (
    select
        source_system,
        project_id,
        subject_type,
        subject_id,
        kpi,
        period_type,
        currency,
        cast(target_origin as {{ type_label() }}) as target_origin,
        target_of_day,
        date_day,
        week_start,
        month
    from ranked
    where place = 1
)

select * from final
