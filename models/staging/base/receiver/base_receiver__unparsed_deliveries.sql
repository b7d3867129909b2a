with

source as (
    select * from {{ source('raw', 'unparsed_deliveries') }}
),

final as (
    select
        delivery_id,
        received_at
    from source
)

select * from final
