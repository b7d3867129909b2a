with

source as (
    select * from {{ source('settings', 'stage_map_scd') }}
),

final as (
    select
        map_id,
        report_version,
        source_system,
        project_id,
        pipeline_id,
        stage_id,
        sub_key,
        effective_from,
        effective_to
    from source
)

select * from final
