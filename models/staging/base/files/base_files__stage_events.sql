with

source as (
    select * from {{ source('raw_files', 'stage_events') }}
),

final as (
    select
        source_system,
        project_id,
        entity_type,
        entity_id,
        pipeline_id,
        stage_id,
        stage_group_id,
        entered_at,
        sequence,
        {{ record_origin('source_file', 'source_line') }} as record_origin
    from source
)

select * from final
