with

source as (
    select * from {{ source('settings', 'calendar_windows') }}
),

final as (
    select
        calendar_id,
        weekday,
        opens_second,
        closes_second
    from source
)

select * from final
