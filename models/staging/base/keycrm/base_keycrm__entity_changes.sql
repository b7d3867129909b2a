with

source as (
    select * from {{ source('raw_keycrm', 'orders') }}
),

-- An order's items are written with it.
final as (
    select
        cast('keycrm' as {{ type_label() }}) as source_system,
        project_id,
        cast('order' as {{ type_label() }}) as entity_type,
        order_id as entity_id,
        fetched_xid as written_xid,
        fetched_at as stated_at
    from source
)

select * from final
