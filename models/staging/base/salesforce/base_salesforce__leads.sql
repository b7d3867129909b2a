{%- set standard = {
    'Company': 'company',
    'ConvertedAccountId': 'converted_account_id',
    'ConvertedContactId': 'converted_contact_id',
    'ConvertedOpportunityId': 'converted_opportunity_id',
    'LeadSource': 'lead_source',
    'MasterRecordId': 'master_record_id',
    'OwnerId': 'owner_id',
    'Status': 'status',
} %}

with

leads as (
    select * from {{ source('raw_salesforce', 'leads') }}
),

opportunities as (
    select * from {{ ref('base_salesforce__opportunities') }}
),

field_map as (
    select * from {{ ref('base_settings__field_map') }}
),

-- Salesforce knows the day of a conversion; it is never before the lead was created.
converted as (
    select
        leads.*,
        case
            when not coalesce(leads.is_converted, false) then null
            when {{ start_of_day('leads.converted_date') }} < leads.created_at then leads.created_at
            else {{ start_of_day('leads.converted_date') }}
        end as converted_at
    from leads
    where leads.created_at is not null
),

final as (
    select
        cast('salesforce' as {{ type_label() }}) as source_system,
        converted.project_id,
        converted.lead_id,
        {{ salesforce_field('converted', 'field_map.facility_id', standard) }} as facility_id,
        coalesce(
            {{ salesforce_field('converted', 'field_map.rep_id', standard) }}, converted.owner_id
        ) as rep_id,
        case
            when opportunities.status = 'open' then 'opportunity'
            when opportunities.status is not null then opportunities.status
            when converted.is_converted then 'sql'
            else 'lead'
        end as stage,
        opportunities.amount,
        opportunities.currency,
        opportunities.win_probability,
        converted.created_at,
        converted.converted_at as sql_at,
        case
            when opportunities.opportunity_id is not null then converted.converted_at
        end as opportunity_at,
        case when opportunities.status = 'won' then opportunities.closed_at end as won_at,
        case when opportunities.status = 'lost' then opportunities.closed_at end as lost_at,
        converted.modified_at as updated_at,
        coalesce(converted.is_deleted, false) or converted.is_gone as is_deleted,
        {{ dbt.concat(["'lead '", 'converted.lead_id']) }} as record_origin
    from converted
    left join opportunities
        on
            converted.project_id = opportunities.project_id
            and converted.converted_opportunity_id = opportunities.opportunity_id
    left join field_map
        on
            field_map.source_system = 'salesforce'
            and field_map.entity = 'leads'
            and converted.project_id = field_map.project_id
)

select * from final
