with

source as (
    select * from {{ source('settings', 'sla_thresholds') }}
),

final as (
    select
        sla_threshold_id,
        source_system,
        project_id,
        near_pct,
        effective_from,
        effective_to
    from source
)

select * from final
