{{ config(
    materialized=flow_materialized(),
    incremental_strategy='by_entity',
    on_schema_change='append_new_columns',
    post_hook=['{{ gather_statistics(this) }}', '{{ remember_flow_position() }}'],
) }}

with

cycles as (
    select * from {{ ref('int_order_cycles') }}
    {{ where_changed('order_id') }}
),

final as (
    select
        source_system,
        project_id,
        order_id,
        cycle_rule_id,
        title as cycle_title,
        is_default,
        is_overridden,
        start_group_id,
        start_stage_id,
        end_group_id,
        end_stage_id,
        start_at,
        end_at,
        seconds as duration_seconds,
        working_seconds as duration_working_seconds,
        {{ flag('end_at is not null and seconds is null') }} as has_impossible_duration,
        {{ built_at() }} as updated_at
    from cycles
)

select * from final
