with

source as (
    select * from {{ source('settings', 'waiting_stages') }}
),

final as (
    select
        waiting_stage_id,
        source_system,
        project_id,
        stage_id,
        effective_from,
        effective_to
    from source
)

select * from final
