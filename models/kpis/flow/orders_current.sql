with

orders as (
    {{ orders_at(ref('int_orders'), as_of()) }}
),

final as (
    select
        orders.*,
        {{ built_at() }} as updated_at
    from orders
)

select * from final
