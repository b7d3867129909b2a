with

source as (
    select * from {{ source('raw', 'replays') }}
),

final as (
    select
        delivery_id,
        replayed_at,
        landed_xid as written_xid
    from source
)

select * from final
