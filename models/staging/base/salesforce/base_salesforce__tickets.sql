{%- set standard = {
    'AccountId': 'account_id',
    'CaseNumber': 'case_number',
    'MasterRecordId': 'master_record_id',
    'Origin': 'origin',
    'OwnerId': 'owner_id',
    'Priority': 'priority',
    'Status': 'status',
} %}

with

cases as (
    select * from {{ source('raw_salesforce', 'cases') }}
),

field_map as (
    select * from {{ ref('base_settings__field_map') }}
),

final as (
    select
        cast('salesforce' as {{ type_label() }}) as source_system,
        cases.project_id,
        cases.case_id as ticket_id,
        {{ salesforce_field('cases', 'field_map.facility_id', standard) }} as facility_id,
        coalesce(
            {{ salesforce_field('cases', 'field_map.rep_id', standard) }}, cases.owner_id
        ) as agent_id,
        case
            when lower(cases.priority) in ('critical', 'urgent') then 'critical'
            when lower(cases.priority) in ('high', 'low') then lower(cases.priority)
            else 'medium'
        end as priority,
        case when cases.is_closed then 'closed' else 'open' end as status,
        cases.created_at,
        -- A case has no instant of its first answer.
        cast(null as {{ type_instant() }}) as first_response_at,
        cases.closed_at as first_resolved_at,
        cases.closed_at as last_resolved_at,
        cast(null as {{ type_instant() }}) as waiting_since,
        cast(null as bigint) as waiting_seconds,
        cases.modified_at as updated_at,
        coalesce(cases.is_deleted, false) or cases.is_gone as is_deleted,
        {{ dbt.concat(["'case '", 'cases.case_id']) }} as record_origin
    from cases
    left join field_map
        on
            field_map.source_system = 'salesforce'
            and field_map.entity = 'tickets'
            and cases.project_id = field_map.project_id
    where cases.created_at is not null
)

select * from final
