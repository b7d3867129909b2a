with

funnel as (
    select * from {{ ref('conversion_funnel') }}
),

pipeline as (
    select * from {{ ref('pipeline_kpis') }}
),

outreach as (
    select * from {{ ref('outreach_kpis') }}
),

revenue as (
    select * from {{ ref('revenue_kpis') }}
),

compliance as (
    select * from {{ ref('compliance_kpis') }}
),

tickets as (
    select * from {{ ref('ticket_sla_compliance') }}
),

satisfaction as (
    select * from {{ ref('satisfaction_rollups') }}
),

health as (
    select * from {{ ref('health_scores') }}
),

facility_months as (
    {%- for part in [
        'funnel', 'pipeline', 'outreach', 'revenue', 'compliance', 'tickets', 'satisfaction',
    ] %}
    select
        facility_id,
        month
    from {{ part }}
    {{ 'union' if not loop.last }}
    {%- endfor %}
),

leads_by_month as (
    select
        facility_id,
        month,
        sum(stage_count) filter (where funnel_stage = 'lead') as leads,
        sum(stage_count) filter (where funnel_stage = 'sql') as sql_leads,
        sum(stage_count) filter (where funnel_stage = 'won') as won_leads
    from funnel
    group by
        facility_id,
        month
),

money_rows as (
    select
        facility_id,
        month,
        currency
    from pipeline
    union
    select
        facility_id,
        month,
        currency
    from revenue
),

-- A rate by count adds up over currencies.
deals_by_month as (
    select
        facility_id,
        month,
        {{ pct('sum(won_opportunities)', 'sum(won_opportunities + lost_opportunities)') }}
            as win_rate_pct
    from pipeline
    group by
        facility_id,
        month
),

-- Amounts of two currencies are never added: where a month has several, their columns stay empty
-- and currency_count says why.
currencies as (
    select
        facility_id,
        month,
        count(*) as currency_count,
        case when count(*) = 1 then max(currency) end as currency
    from money_rows
    group by
        facility_id,
        month
),

tickets_by_month as (
    select
        facility_id,
        month,
        sum(tickets) as tickets,
        {{ pct('sum(first_responses_met)', 'sum(first_responses_judged)') }}
            as first_response_sla_pct,
        {{ pct('sum(resolutions_met)', 'sum(resolutions_judged)') }} as resolution_sla_pct,
        {{ pct('sum(tickets_met)', 'sum(tickets_judged)') }} as ticket_compliance_pct
    from tickets
    group by
        facility_id,
        month
),

surveys_by_month as (
    select
        facility_id,
        month,
        max(avg_score) filter (where survey_type = 'csat') as avg_csat_score,
        max(nps) as nps
    from satisfaction
    group by
        facility_id,
        month
),

final as (
    select
        facility_months.facility_id,
        facility_months.month,
        currencies.currency,
        coalesce(currencies.currency_count, 0) as currency_count,
        cast(leads_by_month.leads as bigint) as leads,
        cast(leads_by_month.sql_leads as bigint) as sql_leads,
        cast(leads_by_month.won_leads as bigint) as won_leads,
        {{ pct('leads_by_month.sql_leads', 'leads_by_month.leads') }} as sql_rate_pct,
        {{ pct('leads_by_month.won_leads', 'leads_by_month.leads') }} as won_rate_pct,
        pipeline.open_value,
        pipeline.won_value,
        deals_by_month.win_rate_pct,
        outreach.total_outreach,
        outreach.response_rate_pct,
        revenue.invoiced_amount,
        revenue.paid_amount,
        revenue.collection_rate_pct,
        compliance.compliance_rate_pct,
        cast(tickets_by_month.tickets as bigint) as tickets,
        {{ mean_of_present(
            'tickets_by_month.first_response_sla_pct', 'tickets_by_month.resolution_sla_pct'
        ) }} as sla_compliance_rate_pct,
        tickets_by_month.ticket_compliance_pct,
        surveys_by_month.avg_csat_score,
        surveys_by_month.nps,
        health.overall_health_score,
        health.health_status,
        {{ built_at() }} as updated_at
    from facility_months
    left join currencies
        on
            facility_months.facility_id = currencies.facility_id
            and facility_months.month = currencies.month
    left join leads_by_month
        on
            facility_months.facility_id = leads_by_month.facility_id
            and facility_months.month = leads_by_month.month
    left join pipeline
        on
            facility_months.facility_id = pipeline.facility_id
            and facility_months.month = pipeline.month
            and currencies.currency = pipeline.currency
    left join deals_by_month
        on
            facility_months.facility_id = deals_by_month.facility_id
            and facility_months.month = deals_by_month.month
    left join outreach
        on
            facility_months.facility_id = outreach.facility_id
            and facility_months.month = outreach.month
    left join revenue
        on
            facility_months.facility_id = revenue.facility_id
            and facility_months.month = revenue.month
            and currencies.currency = revenue.currency
    left join compliance
        on
            facility_months.facility_id = compliance.facility_id
            and facility_months.month = compliance.month
    left join tickets_by_month
        on
            facility_months.facility_id = tickets_by_month.facility_id
            and facility_months.month = tickets_by_month.month
    left join surveys_by_month
        on
            facility_months.facility_id = surveys_by_month.facility_id
            and facility_months.month = surveys_by_month.month
    left join health
        on
            facility_months.facility_id = health.facility_id
            and facility_months.month = health.month
)

select * from final
