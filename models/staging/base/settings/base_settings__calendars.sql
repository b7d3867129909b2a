with

source as (
    select * from {{ source('settings', 'calendars') }}
),

final as (
    select
        calendar_id,
        source_system,
        project_id,
        group_id as stage_group_id,
        is_always_open,
        effective_from,
        effective_to
    from source
)

select * from final
