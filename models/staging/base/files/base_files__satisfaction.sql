with

source as (
    select * from {{ source('raw_files', 'satisfaction') }}
),

final as (
    select
        source_system,
        project_id,
        response_id,
        facility_id,
        ticket_id,
        survey_type,
        score,
        responded_at,
        is_deleted,
        {{ record_origin('source_file', 'source_line') }} as record_origin
    from source
)

select * from final
