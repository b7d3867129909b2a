with

source as (
    select * from {{ source('raw', 'deliveries') }}
),

final as (
    select
        delivery_id,
        sender_delivery_id,
        source_system,
        project_id,
        sender,
        received_at,
        landed_xid as written_xid
    from source
)

select * from final
