with

source as (
    select * from {{ source('settings', 'sla_stage_rules') }}
),

final as (
    select
        sla_rule_id,
        source_system,
        project_id,
        group_id as stage_group_id,
        is_urgent,
        limit_seconds,
        effective_from,
        effective_to
    from source
)

select * from final
