with

source as (
    select * from {{ source('raw_files', 'applications') }}
),

final as (
    select
        source_system,
        project_id,
        application_id,
        facility_id,
        status,
        submitted_at,
        due_at,
        decided_at,
        is_compliant,
        is_deleted,
        {{ record_origin('source_file', 'source_line') }} as record_origin
    from source
)

select * from final
