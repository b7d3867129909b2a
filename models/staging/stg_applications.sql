with

records as (
    {{ records_of_active_projects([
        ref('base_files__applications'),
        ref('base_sample__applications'),
    ]) }}
),

final as (
    select
        {{ entity_key('application_id') }} as application_key,
        records.source_system,
        records.project_id,
        records.application_id,
        coalesce(records.facility_id, 'unassigned') as facility_id,
        records.status,
        records.is_compliant,
        coalesce(records.is_deleted, false) as is_deleted,
        {{ local_month('records.submitted_at', 'records.timezone') }} as submitted_month,
        records.submitted_at,
        records.due_at,
        records.decided_at,
        records.record_origin
    from records
)

select * from final
