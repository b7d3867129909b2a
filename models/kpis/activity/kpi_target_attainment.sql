with

target_days as (
    select * from {{ ref('int_target_days') }}
),

actuals as (
    select * from {{ ref('int_kpi_actuals') }}
),

work_days as (
    select * from {{ ref('int_work_days') }}
),

subjects as (
    select * from {{ ref('int_subjects') }}
),

-- The first week, which ends in the first month, may begin in the one before, of which only some
-- days are known.
todays as (
    select
        source_system,
        project_id,
        as_of_date,
        as_of_week,
        as_of_month,
        min(date_day) as first_date,
        {{ date_of_day('min(' ~ day_of_date('date_day') ~ ') + 6') }} as first_week_end
    from work_days
    group by
        source_system,
        project_id,
        as_of_date,
        as_of_week,
        as_of_month
),

placed as (
    select
        target_days.source_system,
        target_days.project_id,
        target_days.subject_type,
        target_days.subject_id,
        target_days.kpi,
        coalesce(target_days.currency, 'XXX') as currency,
        target_days.period_type,
        target_days.target_origin,
        target_days.target_of_day,
        target_days.date_day,
        case target_days.period_type
            when 'week' then target_days.week_start
            else target_days.month
        end as period_start,
        case target_days.period_type
            when 'week' then todays.as_of_week
            else todays.as_of_month
        end as running_period_start,
        case target_days.period_type
            when 'week' then todays.first_date
            else cast({{ dbt.date_trunc('month', 'todays.first_week_end') }} as date)
        end as first_period_start,
        todays.as_of_date
    from target_days
    inner join todays
        on
            target_days.source_system = todays.source_system
            and target_days.project_id = todays.project_id
),

targets as (
    select
        source_system,
        project_id,
        subject_type,
        subject_id,
        kpi,
        currency,
        period_type,
        period_start,
        period_start = running_period_start as is_running,
        case
            when min(target_origin) = max(target_origin) then min(target_origin)
            else 'own on some days'
        end as target_origin,
        {{ target_of_days('target_of_day') }} as target,
        {{ target_of_days('case when date_day < as_of_date then target_of_day else 0 end') }}
            as target_to_date
    from placed
    where period_start between first_period_start and running_period_start
    group by
        source_system,
        project_id,
        subject_type,
        subject_id,
        kpi,
        currency,
        period_type,
        period_start,
        running_period_start
),

compared as (
    select
        targets.*,
        coalesce(actuals.actual, 0) as actual
    from targets
    left join actuals
        on
            {{ same_subject('targets', 'actuals') | indent(12) }}
            and targets.kpi = actuals.kpi
            and targets.currency = actuals.currency
            and targets.period_type = actuals.period_type
            and targets.period_start = actuals.period_start
),

final as (
    select
        compared.source_system,
        compared.project_id,
        compared.subject_type,
        compared.subject_id,
        coalesce(subjects.subject_name, compared.subject_id) as subject_name,
        compared.kpi,
        compared.currency,
        compared.period_type,
        compared.period_start,
        cast(compared.target_origin as {{ type_label() }}) as target_origin,
        {{ flag('compared.is_running') }} as is_running,
        cast(compared.actual as {{ type_money() }}) as actual,
        cast(compared.target as {{ type_money() }}) as target,
        cast(compared.target_to_date as {{ type_money() }}) as target_to_date,
        {{ pct('compared.actual', 'compared.target') }} as attainment_pct,
        case
            when compared.target_to_date = 0 then null
            when compared.actual >= compared.target_to_date then 'met'
            when compared.actual >= 0.8 * compared.target_to_date then 'near'
            else 'missed'
        end as status,
        {{ built_at() }} as updated_at
    from compared
    left join subjects
        on
            {{ same_subject('compared', 'subjects') | indent(12) }}
)

select * from final
