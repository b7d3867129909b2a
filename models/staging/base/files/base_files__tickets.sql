with

source as (
    select * from {{ source('raw_files', 'tickets') }}
),

final as (
    select
        source_system,
        project_id,
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
        {{ record_origin('source_file', 'source_line') }} as record_origin
    from source
)

select * from final
