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
        loaded_xid as written_xid,
        cast(null as {{ type_instant() }}) as stated_at
    from source
)

select * from final
