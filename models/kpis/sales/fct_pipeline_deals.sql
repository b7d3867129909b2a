with

leads as (
    select * from {{ ref('fct_leads') }}
),

opportunities as (
    select * from {{ ref('fct_opportunities') }}
),

stages as (
    select * from {{ ref('stage_weights') }}
),

-- A deal counts once: as its opportunity where there is one, else as its lead.
leads_with_opportunity as (
    select distinct lead_key
    from opportunities
    where lead_key is not null and excluded_reason is null
),

deals as (
    select
        opportunity_key as pipeline_deal_key,
        'opportunity' as deal_type,
        source_system,
        project_id,
        opportunity_id as deal_id,
        facility_id,
        rep_id,
        case outcome when 'open' then 'opportunity' else outcome end as stage,
        currency,
        excluded_reason,
        record_origin,
        amount,
        win_probability,
        month,
        created_at
    from opportunities
    union all
    select
        leads.lead_key as pipeline_deal_key,
        'lead' as deal_type,
        leads.source_system,
        leads.project_id,
        leads.lead_id as deal_id,
        leads.facility_id,
        leads.rep_id,
        leads.stage,
        leads.currency,
        coalesce(
            leads.excluded_reason,
            case when leads_with_opportunity.lead_key is not null then 'counted as opportunity' end
        ) as excluded_reason,
        leads.record_origin,
        leads.amount,
        leads.win_probability,
        leads.month,
        leads.created_at
    from leads
    left join leads_with_opportunity on leads.lead_key = leads_with_opportunity.lead_key
),

final as (
    select
        {{ dbt.concat(['deals.deal_type', "'|'", 'deals.pipeline_deal_key']) }}
            as pipeline_deal_key,
        deals.deal_type,
        deals.source_system,
        deals.project_id,
        deals.deal_id,
        deals.facility_id,
        deals.rep_id,
        deals.stage,
        deals.currency,
        case
            when deals.excluded_reason is not null then deals.excluded_reason
            when deals.stage in ('lost', 'archived') then deals.stage
            when deals.amount is null then 'no amount'
        end as excluded_reason,
        deals.record_origin,
        deals.amount,
        deals.win_probability,
        cast(deals.amount * deals.win_probability as {{ type_money() }}) as expected_amount,
        stages.stage_weight,
        deals.month,
        deals.created_at,
        {{ built_at() }} as updated_at
    from deals
    left join stages on deals.stage = stages.stage
)

select * from final
