with

deals as (
    select * from {{ source('raw_pipedrive', 'deals') }}
),

listed_deals as (
    select * from {{ source('raw_pipedrive', 'listed_deals') }}
),

deal_changes as (
    select * from {{ source('raw_pipedrive', 'deal_changes') }}
),

deal_histories as (
    select * from {{ source('raw_pipedrive', 'deal_histories') }}
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
        loaded_xid as written_xid,
        coalesce(gone_seen_at, fetched_at) as stated_at
    from listed_deals
    union all
    select
        cast('pipedrive' as {{ type_label() }}) as source_system,
        project_id,
        cast('deal' as {{ type_label() }}) as entity_type,
        deal_id as entity_id,
        fetched_xid as written_xid,
        cast(null as {{ type_instant() }}) as stated_at
    from deal_changes
    union all
    select
        cast('pipedrive' as {{ type_label() }}) as source_system,
        project_id,
        cast('deal' as {{ type_label() }}) as entity_type,
        deal_id as entity_id,
        loaded_xid as written_xid,
        cast(null as {{ type_instant() }}) as stated_at
    from deal_histories
)

select * from final
