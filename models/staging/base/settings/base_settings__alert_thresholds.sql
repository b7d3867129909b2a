with

source as (
    select * from {{ source('settings', 'alert_thresholds') }}
),

final as (
    select
        alert_threshold_id,
        source_system,
        project_id,
        rule,
        threshold,
        effective_from,
        effective_to
    from source
)

select * from final
