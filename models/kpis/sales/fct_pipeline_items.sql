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

-- A deal is one item: its opportunity where there is one, else its lead.
leads_with_opportunity as (
    select distinct lead_key
    from opportunities
    where lead_key is not null and excluded_reason is null
),

items as (
    select
        opportunity_key as pipeline_item_key,
        'opportunity' as item_type,
        source_system,
        project_id,
        opportunity_id as item_id,
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
        leads.lead_key as pipeline_item_key,
        'lead' as item_type,
        leads.source_system,
        leads.project_id,
        leads.lead_id as item_id,
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
        {{ dbt.concat(['items.item_type', "'|'", 'items.pipeline_item_key']) }}
            as pipeline_item_key,
        items.item_type,
        items.source_system,
        items.project_id,
        items.item_id,
        items.facility_id,
        items.rep_id,
        items.stage,
        items.currency,
        case
            when items.excluded_reason is not null then items.excluded_reason
            when items.stage in ('lost', 'archived') then items.stage
            when items.amount is null then 'no amount'
        end as excluded_reason,
        items.record_origin,
        items.amount,
        items.win_probability,
        cast(items.amount * items.win_probability as {{ type_money() }}) as expected_amount,
        stages.stage_weight,
        items.month,
        items.created_at,
        {{ built_at() }} as updated_at
    from items
    left join stages on items.stage = stages.stage
)

select * from final
