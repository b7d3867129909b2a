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
        cast(null as {{ type_label() }}) as previous_stage_id,
        cast(null as {{ type_label() }}) as delivery_id,
        sequence,
        entered_at,
        cast(null as {{ type_instant() }}) as entity_created_at,
        cast(null as {{ type_instant() }}) as ingested_at,
        {{ record_origin('source_file', 'source_line') }} as record_origin
    from source
)

select * from final
