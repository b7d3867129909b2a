with

deals as (
    select * from {{ source('raw_hubspot', 'deals') }}
),

deal_history as (
    select * from {{ source('raw_hubspot', 'deal_history') }}
),

archived_deals as (
    select * from {{ source('raw_hubspot', 'archived_deals') }}
),

merged_deals as (
    select * from {{ source('raw_hubspot', 'merged_deals') }}
),

final as (
    select
        cast('hubspot' as {{ type_label() }}) as source_system,
        project_id,
        cast('deal' as {{ type_label() }}) as entity_type,
        deal_id as entity_id,
        loaded_xid as written_xid,
        coalesce(gone_seen_at, fetched_at) as stated_at
    from deals
    union all
    select
        cast('hubspot' as {{ type_label() }}) as source_system,
        project_id,
        cast('deal' as {{ type_label() }}) as entity_type,
        deal_id as entity_id,
        loaded_xid as written_xid,
        cast(null as {{ type_instant() }}) as stated_at
    from deal_history
    union all
    select
        cast('hubspot' as {{ type_label() }}) as source_system,
        project_id,
        cast('deal' as {{ type_label() }}) as entity_type,
        deal_id as entity_id,
        loaded_xid as written_xid,
        coalesce(gone_seen_at, archived_at, fetched_at) as stated_at
    from archived_deals
    union all
    select
        cast('hubspot' as {{ type_label() }}) as source_system,
        project_id,
        cast('deal' as {{ type_label() }}) as entity_type,
        deal_id as entity_id,
        loaded_xid as written_xid,
        fetched_at as stated_at
    from merged_deals
)

select * from final
