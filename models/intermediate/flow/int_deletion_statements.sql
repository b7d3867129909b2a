with

lifecycle_events as (
    select * from {{ ref('base_receiver__lifecycle_events') }}
),

deals as (
    select * from {{ ref('base_pipedrive__deals') }}
),

orders as (
    select * from {{ ref('base_keycrm__orders') }}
),

hubspot_deletions as (
    select * from {{ ref('base_hubspot__deletions') }}
),

salesforce_deletions as (
    select * from {{ ref('base_salesforce__deletions') }}
),

final as (
    select
        source_system,
        project_id,
        entity_type,
        entity_id,
        event in ('deleted', 'merged') as is_deleted,
        occurred_at as stated_at,
        ingested_at
    from lifecycle_events
    where event != 'created'
    union all
    select
        source_system,
        project_id,
        'deal' as entity_type,
        deal_id as entity_id,
        coalesce(is_deleted, false) or coalesce(is_gone, false) as is_deleted,
        fetched_at as stated_at,
        fetched_at as ingested_at
    from deals
    union all
    select
        source_system,
        project_id,
        'order' as entity_type,
        order_id as entity_id,
        coalesce(is_gone, false) as is_deleted,
        coalesce(gone_seen_at, fetched_at) as stated_at,
        coalesce(gone_seen_at, fetched_at) as ingested_at
    from orders
    union all
    select
        source_system,
        project_id,
        entity_type,
        entity_id,
        is_deleted,
        stated_at,
        ingested_at
    from hubspot_deletions
    union all
    select
        source_system,
        project_id,
        entity_type,
        entity_id,
        is_deleted,
        stated_at,
        ingested_at
    from salesforce_deletions
)

select * from final
