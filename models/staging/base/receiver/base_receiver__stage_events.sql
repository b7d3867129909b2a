with

source as (
    select * from {{ source('raw', 'stage_events') }}
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
        previous_stage_id,
        cast(delivery_id as {{ type_label() }}) as delivery_id,
        cast(null as bigint) as sequence,
        entered_at,
        entity_created_at,
        ingested_at,
        {{ dbt.concat(["'delivery '", 'cast(delivery_id as ' ~ type_label() ~ ')']) }}
            as record_origin
    from source
)

select * from final
