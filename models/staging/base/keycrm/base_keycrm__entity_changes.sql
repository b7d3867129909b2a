with

source as (
    select * from {{ source('raw_keycrm', 'orders') }}
),

-- An order is written whenever its items are.
final as (
    select
        cast('keycrm' as {{ type_label() }}) as source_system,
        project_id,
        cast('order' as {{ type_label() }}) as entity_type,
        order_id as entity_id,
        fetched_xid as written_xid,
        coalesce(gone_seen_at, fetched_at) as stated_at
    from source
)

select * from final
