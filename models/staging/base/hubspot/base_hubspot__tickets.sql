{%- set standard = {
    'hs_pipeline': 'pipeline_id',
    'hs_pipeline_stage': 'stage_id',
    'hs_resolution': 'resolution',
    'hs_ticket_category': 'category',
    'hs_ticket_priority': 'priority',
    'hubspot_owner_id': 'owner_id',
    'source_type': 'origin',
    'subject': 'subject',
} %}

with

tickets as (
    select * from {{ source('raw_hubspot', 'tickets') }}
),

stages as (
    select * from {{ source('raw_hubspot', 'ticket_stages') }}
),

field_map as (
    select * from {{ ref('base_settings__field_map') }}
    where source_system = 'hubspot' and entity = 'tickets'
),

final as (
    select
        cast('hubspot' as {{ type_label() }}) as source_system,
        tickets.project_id,
        tickets.ticket_id,
        {{ mapped_field('tickets', 'field_map.facility_id', standard) }} as facility_id,
        coalesce(
            {{ mapped_field('tickets', 'field_map.rep_id', standard) }}, tickets.owner_id
        ) as agent_id,
        case upper(tickets.priority)
            when 'LOW' then 'low'
            when 'HIGH' then 'high'
            when 'URGENT' then 'critical'
            else 'medium'
        end as priority,
        case
            when stages.ticket_state = 'CLOSED' then 'closed'
            when stages.ticket_state is null and tickets.is_closed then 'closed'
            else 'open'
        end as status,
        coalesce(tickets.created_at, tickets.modified_at, tickets.fetched_at) as created_at,
        tickets.first_reply_at as first_response_at,
        -- HubSpot keeps the last resolution alone: the first one was not after the reopening.
        case
            when tickets.closed_at < tickets.reopened_at then tickets.closed_at
            else coalesce(tickets.reopened_at, tickets.closed_at)
        end as first_resolved_at,
        tickets.closed_at as last_resolved_at,
        cast(null as {{ type_instant() }}) as waiting_since,
        cast(null as bigint) as waiting_seconds,
        tickets.modified_at as updated_at,
        tickets.is_gone as is_deleted,
        {{ dbt.concat(["'ticket '", 'tickets.ticket_id']) }} as record_origin
    from tickets
    left join stages
        on
            tickets.project_id = stages.project_id
            and tickets.stage_id = stages.stage_id
    left join field_map on tickets.project_id = field_map.project_id
)

select * from final
