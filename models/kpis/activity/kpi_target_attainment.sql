{{ config(
    materialized=flow_materialized(),
    incremental_strategy='by_period_type',
    on_schema_change='append_new_columns',
    pre_hook='{{ begin_periods(
        parts_of_periods(["week", "month"], periods=[
            target_periods(columns=["target", "target_to_date", "target_origin", "is_running"]),
            contents_of_periods(ref("int_kpi_actuals")),
        ]),
        name_parts(),
    ) }}',
    post_hook='{{ remember_periods() }}',
) }}

with

targets as (
    select * from {{ ref('int_target_periods') }}
    where {{ period_is_to_build('period_type', 'period_start') }}
),

actuals as (
    select * from {{ ref('int_kpi_actuals') }}
    where {{ period_is_to_build('period_type', 'period_start') }}
),

subjects as (
    select * from {{ ref('int_subjects') }}
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
        compared.target_origin,
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
