with

records as (
    {{ records_of_active_projects([ref('base_files__outreach'), ref('base_sample__outreach')]) }}
),

final as (
    select
        {{ entity_key('outreach_id') }} as outreach_key,
        records.source_system,
        records.project_id,
        records.outreach_id,
        case when records.lead_id is not null then {{ entity_key('lead_id') }} end as lead_key,
        coalesce(records.facility_id, 'unassigned') as facility_id,
        coalesce(records.rep_id, 'unassigned') as rep_id,
        records.channel,
        coalesce(records.is_deleted, false) as is_deleted,
        {{ local_month('records.sent_at', 'records.timezone') }} as sent_month,
        records.sent_at,
        records.responded_at,
        records.converted_at,
        records.record_origin
    from records
)

select * from final
