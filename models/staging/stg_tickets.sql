with

records as (
    {{ records_of_active_projects([
        ref('base_files__tickets'),
        ref('base_sample__tickets'),
        ref('base_hubspot__tickets'),
        ref('base_salesforce__tickets'),
    ]) }}
),

final as (
    select
        {{ entity_key('ticket_id') }} as ticket_key,
        records.source_system,
        records.project_id,
        records.ticket_id,
        coalesce(records.facility_id, 'unassigned') as facility_id,
        coalesce(records.agent_id, 'unassigned') as agent_id,
        records.priority,
        records.status,
        coalesce(records.waiting_seconds, 0) as waiting_seconds,
        coalesce(records.is_deleted, false) as is_deleted,
        {{ local_month('records.created_at', 'records.timezone') }} as created_month,
        records.created_at,
        records.first_response_at,
        records.first_resolved_at,
        records.last_resolved_at,
        records.waiting_since,
        records.record_origin
    from records
)

select * from final
