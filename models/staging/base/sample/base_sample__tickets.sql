with

source as (
    select * from {{ ref('sample_tickets') }}
),

final as (
    select
        cast('sample' as {{ type_label() }}) as source_system,
        cast('sample' as {{ type_label() }}) as project_id,
        ticket_id,
        facility_id,
        agent_id,
        priority,
        status,
        created_at,
        first_response_at,
        first_resolved_at,
        last_resolved_at,
        waiting_since,
        waiting_seconds,
        updated_at,
        is_deleted,
        cast('seed sample_tickets' as {{ type_label() }}) as record_origin
    from source
)

select * from final
