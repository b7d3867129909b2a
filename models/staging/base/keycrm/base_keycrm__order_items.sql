with

source as (
    select * from {{ source('raw_keycrm', 'order_items') }}
),

final as (
    select
        cast('keycrm' as {{ type_label() }}) as source_system,
        project_id,
        order_id,
        line_id,
        product_id,
        offer_id,
        sku,
        name,
        position,
        quantity,
        price_sold,
        purchased_price,
        {{ dbt.concat([
            "'order '", 'order_id', "', item '", 'cast(position as ' ~ type_label() ~ ')'
        ]) }} as record_origin
    from source
)

select * from final
