with

records as (
    {{ records_of_active_projects([
        ref('base_files__satisfaction'),
        ref('base_sample__satisfaction'),
        ref('base_hubspot__satisfaction'),
    ]) }}
),

final as (
    select
        {{ entity_key('response_id') }} as response_key,
        records.source_system,
        records.project_id,
        records.response_id,
        coalesce(records.facility_id, 'unassigned') as facility_id,
        case
            when records.ticket_id is not null then {{ entity_key('ticket_id') }}
        end as ticket_key,
        records.survey_type,
        records.score,
        coalesce(records.is_deleted, false) as is_deleted,
        {{ local_month('records.responded_at', 'records.timezone') }} as responded_month,
        records.responded_at,
        records.record_origin
    from records
)

select * from final
