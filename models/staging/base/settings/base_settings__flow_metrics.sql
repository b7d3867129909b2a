with

source as (
    select * from {{ source('settings', 'flow_metrics') }}
),

final as (
    select
        flow_metric_id,
        title,
        source_system,
        project_id,
        start_pipeline_id,
        start_stage_id,
        start_sub_key,
        end_pipeline_id,
        end_stage_id,
        end_sub_key,
        is_working_time,
        green_limit_seconds,
        red_limit_seconds,
        comment,
        position,
        is_on
    from source
)

select * from final
