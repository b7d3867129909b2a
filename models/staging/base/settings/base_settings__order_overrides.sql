with

source as (
    select * from {{ source('settings', 'order_overrides') }}
),

final as (
    select
        order_override_id,
        source_system,
        project_id,
        order_id,
        is_urgent,
        sla_profile,
        cycle_start_group_id,
        cycle_start_stage_id,
        cycle_end_group_id,
        cycle_end_stage_id,
        effective_from,
        effective_to
    from source
)

select * from final
