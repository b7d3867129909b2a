with

source as (
    select * from {{ source('settings', 'stage_dictionary') }}
),

final as (
    select
        source_system,
        project_id,
        stage_id,
        pipeline_id,
        name as stage_name,
        group_id as stage_group_id,
        position,
        is_active
    from source
)

select * from final
