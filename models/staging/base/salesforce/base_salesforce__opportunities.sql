{%- set standard = {
    'AccountId': 'account_id',
    'Account.Name': 'account_name',
    'CampaignId': 'campaign_id',
    'CurrencyIsoCode': 'currency',
    'ForecastCategory': 'forecast_category',
    'ForecastCategoryName': 'forecast_category_name',
    'LeadSource': 'lead_source',
    'Name': 'name',
    'NextStep': 'next_step',
    'OwnerId': 'owner_id',
    'RecordTypeId': 'record_type_id',
    'StageName': 'stage_name',
    'Type': 'opportunity_type',
} %}

with

opportunities as (
    select * from {{ source('raw_salesforce', 'opportunities') }}
),

leads as (
    select * from {{ source('raw_salesforce', 'leads') }}
),

field_map as (
    select * from {{ ref('base_settings__field_map') }}
),

-- Several leads may have become one opportunity.
converted_leads as (
    select
        project_id,
        converted_opportunity_id,
        min(lead_id) as lead_id
    from leads
    where converted_opportunity_id is not null and not coalesce(is_deleted, false) and not is_gone
    group by project_id, converted_opportunity_id
),

-- What is mapped may be a field of the organisation's own, or a standard one.
mapped as (
    select
        opportunities.*,
        coalesce(
            {{ salesforce_field('opportunities', 'field_map.lead_id', standard) }},
            converted_leads.lead_id
        ) as lead_id,
        {{ salesforce_field('opportunities', 'field_map.facility_id', standard) }} as facility_id,
        coalesce(
            {{ salesforce_field('opportunities', 'field_map.rep_id', standard) }},
            opportunities.owner_id
        ) as rep_id,
        coalesce(
            {{ salesforce_field('opportunities', 'field_map.company', standard) }},
            opportunities.account_name
        ) as company
    from opportunities
    left join converted_leads
        on
            opportunities.project_id = converted_leads.project_id
            and opportunities.opportunity_id = converted_leads.converted_opportunity_id
    left join field_map
        on
            field_map.source_system = 'salesforce'
            and field_map.entity = 'deals'
            and opportunities.project_id = field_map.project_id
),

final as (
    select
        cast('salesforce' as {{ type_label() }}) as source_system,
        project_id,
        opportunity_id,
        lead_id,
        facility_id,
        rep_id,
        name,
        company,
        stage_name as stage,
        case when is_won then 'won' when is_closed then 'lost' else 'open' end as status,
        amount,
        currency,
        probability * 0.01 as win_probability,
        created_at,
        -- The close date is a day that people set; the stage was entered at an instant. Deals that
        -- were brought in closed have the day alone.
        case
            when not coalesce(is_closed, false) then null
            when last_stage_change_at is not null then last_stage_change_at
            when {{ start_of_day('close_date') }} < created_at then created_at
            else {{ start_of_day('close_date') }}
        end as closed_at,
        close_date as expected_close_date,
        modified_at as updated_at,
        coalesce(is_deleted, false) or is_gone as is_deleted,
        {{ dbt.concat(["'opportunity '", 'opportunity_id']) }} as record_origin
    from mapped
    where created_at is not null
)

select * from final
