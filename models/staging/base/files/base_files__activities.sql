with

source as (
    select * from {{ source('raw_files', 'activities') }}
),

final as (
    select
        source_system,
        project_id,
        activity_id,
        activity_type,
        rep_id,
        lead_id,
        opportunity_id,
        facility_id,
        channel,
        scheduled_at,
        completed_at,
        outcome,
        item_id,
        created_at,
        updated_at,
        is_deleted,
        {{ record_origin('source_file', 'source_line') }} as record_origin
    from source
)

select * from final
