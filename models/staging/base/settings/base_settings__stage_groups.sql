with

source as (
    select * from {{ source('settings', 'stage_group_dictionary') }}
),

final as (
    select
        source_system,
        project_id,
        group_id,
        name as group_name,
        kind as group_kind,
        position,
        is_active
    from source
)

select * from final
