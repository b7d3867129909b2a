{{ config(materialized=live_materialized(), post_hook="{{ share_tail(ref('int_orders')) }}") }}

with

orders as (
    {{ orders_at(live(ref('int_orders')), live_instant()) }}
),

final as (
    select
        orders.*,
        {{ read_at() }} as updated_at
    from orders
)

select * from final
