with

source as (
    select * from {{ source('raw_pipedrive', 'deals') }}
),

final as (
    select
        cast('pipedrive' as {{ type_label() }}) as source_system,
        project_id,
        deal_id,
        pipeline_id,
        stage_id,
        status,
        is_deleted,
        is_gone,
        added_at,
        fetched_at
    from source
)

select * from final
