with

source as (
    select * from {{ source('settings', 'projects') }}
),

final as (
    select
        source_system,
        project_id,
        name as project_name,
        timezone,
        currency,
        is_active
    from source
)

select * from final
