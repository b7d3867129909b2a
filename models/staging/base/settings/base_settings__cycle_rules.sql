with

source as (
    select * from {{ source('settings', 'cycle_rules') }}
),

final as (
    select
        cycle_rule_id,
        source_system,
        project_id,
        title,
        start_group_id,
        start_stage_id,
        end_group_id,
        end_stage_id,
        is_default,
        effective_from,
        effective_to
    from source
)

select * from final
