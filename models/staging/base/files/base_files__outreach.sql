with

source as (
    select * from {{ source('raw_files', 'outreach') }}
),

final as (
    select
        source_system,
        project_id,
        outreach_id,
        rep_id,
        facility_id,
        lead_id,
        channel,
        sent_at,
        responded_at,
        converted_at,
        is_deleted,
        {{ record_origin('source_file', 'source_line') }} as record_origin
    from source
)

select * from final
