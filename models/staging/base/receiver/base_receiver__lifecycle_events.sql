with

source as (
    select * from {{ source('raw', 'lifecycle_events') }}
),

final as (
    select
        source_system,
        project_id,
        entity_type,
        entity_id,
        event,
        merged_into,
        cast(delivery_id as {{ type_label() }}) as delivery_id,
        occurred_at,
        ingested_at
    from source
)

select * from final
