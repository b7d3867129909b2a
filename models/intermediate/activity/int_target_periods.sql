{{ config(materialized='table', post_hook='{{ gather_statistics(this) }}') }}

with

target_ranges as (
    select * from {{ ref('int_target_ranges') }}
),

work_days as (
    select * from {{ ref('int_work_days') }}
),

periods as (
    {{ periods_of('work_days') | indent(4) }}
),

parts as (
    select
        target_ranges.source_system,
        target_ranges.project_id,
        target_ranges.subject_type,
        target_ranges.subject_id,
        target_ranges.kpi,
        target_ranges.currency,
        target_ranges.target,
        target_ranges.target_origin,
        periods.period_type,
        periods.period_start,
        periods.is_running,
        periods.working_days,
        periods.working_days_gone,
        greatest(target_ranges.day_from, periods.first_day) as first_day,
        least(target_ranges.day_to, periods.last_day) as last_day
    from target_ranges
    inner join periods
        on
            target_ranges.source_system = periods.source_system
            and target_ranges.project_id = periods.project_id
            and target_ranges.period_type = periods.period_type
            and target_ranges.day_from <= periods.last_day
            and (target_ranges.day_to is null or target_ranges.day_to >= periods.first_day)
    where periods.known_working_days > 0
    {{ computed_once() }}
),

numbered_parts as (
    {{ numbered_parts('parts', 'work_days') | indent(4) }}
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
        period_start,
        is_running,
        cast(
            case
                when min(target_origin) = max(target_origin) then min(target_origin)
                else 'own on some days'
            end as {{ type_label() }}
        ) as target_origin,
        {{ target_of_days('target', 'working_days', '(days_until - days_before)') }} as target,
        {{ target_of_days(
            'target',
            'working_days',
            '(least(days_until, working_days_gone) - least(days_before, working_days_gone))',
        ) | indent(8) }} as target_to_date
    from numbered_parts
    where days_until > days_before
    group by
        period_start,
        subject_id,
        kpi,
        period_type,
        currency,
        subject_type,
        project_id,
        source_system,
        is_running
)

select * from final
