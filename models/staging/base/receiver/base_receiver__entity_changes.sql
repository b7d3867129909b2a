with

stage_events as (
    select * from {{ source('raw', 'stage_events') }}
),

lifecycle_events as (
    select * from {{ source('raw', 'lifecycle_events') }}
),

final as (
    select
        source_system,
        project_id,
        entity_type,
        entity_id,
        ingested_xid as written_xid,
        cast(null as {{ type_instant() }}) as stated_at
    from stage_events
    union all
    select
        source_system,
        project_id,
        entity_type,
        entity_id,
        ingested_xid as written_xid,
        occurred_at as stated_at
    from lifecycle_events
)

select * from final
