{{ config(
    materialized=live_materialized(),
    post_hook="{{ share_tail(ref('int_order_visits')) }}",
) }}

with

visits as (
    select * from {{ live(ref('int_order_visits')) }} as given
),

final as (
    select
        source_system,
        project_id,
        order_id,
        visit_number,
        stage_id as status_id,
        stage_name as status_name,
        stage_group_id as status_group_id,
        group_name as status_group_name,
        group_kind as status_group_kind,
        group_visit_number,
        is_current,
        is_waiting,
        is_unknown_stage as is_unknown_status,
        is_inferred,
        entered_at,
        left_at,
        seconds as duration_seconds,
        working_seconds as duration_working_seconds,
        paused_seconds,
        paused_working_seconds,
        calendar_scope_id,
        delivery_id,
        record_origin,
        {{ read_at() }} as updated_at
    from visits
)

select * from final
