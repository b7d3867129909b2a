with

records as (
    {{ records_of_active_projects([ref('base_keycrm__order_items')]) }}
),

orders as (
    select * from {{ ref('base_keycrm__orders') }}
),

final as (
    select
        {{ entity_key('order_id') }} as order_key,
        records.source_system,
        records.project_id,
        records.order_id,
        records.line_id,
        records.product_id,
        records.offer_id,
        records.sku,
        records.name as item_name,
        records.position,
        records.quantity,
        records.price_sold,
        records.purchased_price,
        records.project_currency as currency,
        coalesce(orders.is_gone, false) as is_deleted,
        records.record_origin
    from records
    left join orders
        on
            records.source_system = orders.source_system
            and records.project_id = orders.project_id
            and records.order_id = orders.order_id
)

select * from final
