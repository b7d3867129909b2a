with

source as (
    select * from {{ source('settings', 'day_exceptions') }}
),

final as (
    select
        source_system,
        project_id,
        day,
        as_weekday,
        name
    from source
)

select * from final
