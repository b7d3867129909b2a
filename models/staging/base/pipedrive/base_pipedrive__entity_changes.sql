with

deals as (
    select * from {{ source('raw_pipedrive', 'deals') }}
),

deal_changes as (
    select * from {{ source('raw_pipedrive', 'deal_changes') }}
),

final as (
    select
        cast('pipedrive' as {{ type_label() }}) as source_system,
        project_id,
        cast('deal' as {{ type_label() }}) as entity_type,
        deal_id as entity_id,
        fetched_xid as written_xid,
        fetched_at as stated_at
    from deals
    union all
    select
        cast('pipedrive' as {{ type_label() }}) as source_system,
        project_id,
        cast('deal' as {{ type_label() }}) as entity_type,
        deal_id as entity_id,
        fetched_xid as written_xid,
        cast(null as {{ type_instant() }}) as stated_at
    from deal_changes
)

select * from final
