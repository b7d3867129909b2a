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
        stage_id,
        delivery_id,
        entered_at,
        ingested_at,
        ingested_xid as written_xid
    from source
)

select * from final
