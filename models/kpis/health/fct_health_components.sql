with

applications as (
    select * from {{ ref('fct_applications') }}
    where excluded_reason is null
),

items as (
    select * from {{ ref('fct_pipeline_deals') }}
    where excluded_reason is null
),

leads as (
    select * from {{ ref('fct_leads') }}
    where excluded_reason is null
),

tickets as (
    select * from {{ ref('fct_tickets') }}
    where excluded_reason is null
),

responses as (
    select * from {{ ref('fct_satisfaction') }}
    where excluded_reason is null
),

components as (
    select * from {{ ref('health_components') }}
),

compliance as (
    select
        facility_id,
        month,
        cast('compliance' as {{ type_label() }}) as component,
        100 * cast(sum(is_compliant) as {{ type_number() }})
        / nullif(sum(is_reviewed), 0) as measured_pct
    from applications
    group by
        facility_id,
        month
),

-- Amounts of two currencies cannot be added: each currency's share weighs by its number of deals.
pipeline_by_currency as (
    select
        facility_id,
        month,
        currency,
        count(*) as deals,
        sum(expected_amount) / nullif(sum(amount), 0) as expected_share
    from items
    group by
        facility_id,
        month,
        currency
),

pipeline as (
    select
        facility_id,
        month,
        cast('pipeline' as {{ type_label() }}) as component,
        100 * sum(deals * expected_share)
        / nullif(sum(deals) filter (where expected_share is not null), 0) as measured_pct
    from pipeline_by_currency
    group by
        facility_id,
        month
),

conversion as (
    select
        facility_id,
        month,
        cast('conversion' as {{ type_label() }}) as component,
        100 * cast(sum({{ flag('won_at is not null') }}) as {{ type_number() }})
        / nullif(count(*), 0) as measured_pct
    from leads
    group by
        facility_id,
        month
),

sla_rates as (
    select
        facility_id,
        month,
        {{ pct('sum(first_response_met)', 'sum(first_response_judged)') }}
            as first_response_sla_pct,
        {{ pct('sum(resolution_met)', 'sum(resolution_judged)') }} as resolution_sla_pct
    from tickets
    group by
        facility_id,
        month
),

sla as (
    select
        facility_id,
        month,
        cast('sla' as {{ type_label() }}) as component,
        {{ mean_of_present('first_response_sla_pct', 'resolution_sla_pct') }} as measured_pct
    from sla_rates
),

satisfaction_by_survey as (
    select
        facility_id,
        month,
        100 * avg(scaled_score) filter (where survey_type = 'csat') as csat_pct,
        50 + 50 * (
            cast(
                sum(is_promoter - is_detractor) filter (where survey_type = 'nps')
                as {{ type_number() }}
            )
            / nullif(count(*) filter (where survey_type = 'nps'), 0)
        ) as nps_pct
    from responses
    group by
        facility_id,
        month
),

satisfaction as (
    select
        facility_id,
        month,
        cast('satisfaction' as {{ type_label() }}) as component,
        {{ mean_of_present('csat_pct', 'nps_pct', 4) }} as measured_pct
    from satisfaction_by_survey
),

measured as (
    select * from compliance
    union all
    select * from pipeline
    union all
    select * from conversion
    union all
    select * from sla
    union all
    select * from satisfaction
),

final as (
    select
        measured.facility_id,
        measured.month,
        measured.component,
        case when measured.measured_pct is null then 'nothing to measure' end as excluded_reason,
        round(measured.measured_pct, 2) as measured_pct,
        components.full_score_at,
        case
            when measured.measured_pct >= components.full_score_at then 100
            else round(100 * measured.measured_pct / components.full_score_at, 2)
        end as score,
        components.weight,
        {{ built_at() }} as updated_at
    from measured
    inner join components on measured.component = components.component
)

select * from final
