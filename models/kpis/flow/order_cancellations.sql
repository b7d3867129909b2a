{{ config(
    materialized=flow_materialized(),
    incremental_strategy='by_entity',
    on_schema_change='append_new_columns',
    post_hook=['{{ gather_statistics(this) }}', '{{ remember_flow_position() }}'],
) }}

with

orders as (
    select * from {{ ref('int_orders') }}
    where last_status_group_kind = 'cancelled'
    {{ where_changed('order_id', 'and') }}
),

visits as (
    select * from {{ ref('int_order_visits') }}
),

-- Orders go from one cancelled status to another: they were cancelled from the last other one.
left_last as (
    select
        orders.order_key,
        coalesce(
            max(case when visits.group_kind != 'cancelled' then visits.visit_number end), -1
        ) as last_visit_number
    from orders
    inner join visits on orders.order_key = visits.order_key
    group by orders.order_key
),

-- The next one that there is: numbers of visits that are not known yet are left out.
cancelled_first as (
    select
        left_last.order_key,
        left_last.last_visit_number,
        min(visits.visit_number) as cancelled_visit_number
    from left_last
    inner join visits
        on
            left_last.order_key = visits.order_key
            and left_last.last_visit_number < visits.visit_number
    group by left_last.order_key, left_last.last_visit_number
),

final as (
    select
        orders.source_system,
        orders.project_id,
        orders.order_id,
        cancellations.stage_id as cancelled_status_id,
        cancellations.stage_name as cancelled_status_name,
        sources.stage_id as from_status_id,
        sources.stage_name as from_status_name,
        sources.stage_group_id as from_group_id,
        sources.group_name as from_group_name,
        orders.is_urgent,
        orders.started_at,
        cancellations.entered_at as cancelled_at,
        {{ plausible_second('cancellations.entered_at') }}
        - {{ plausible_second('orders.started_at') }} as seconds_until_cancelled,
        case
            when
                not {{ is_implausible('cancellations.entered_at') }}
                and not {{ is_implausible('orders.started_at') }}
                then cancellations.working_seconds_before
        end as working_seconds_until_cancelled,
        {{ flag(
            is_implausible('cancellations.entered_at') ~ ' or '
            ~ is_implausible('orders.started_at')
        ) }} as has_impossible_duration,
        {{ built_at() }} as updated_at
    from orders
    inner join cancelled_first on orders.order_key = cancelled_first.order_key
    inner join visits as cancellations
        on
            orders.order_key = cancellations.order_key
            and cancelled_first.cancelled_visit_number = cancellations.visit_number
    left join visits as sources
        on
            orders.order_key = sources.order_key
            and cancelled_first.last_visit_number = sources.visit_number
)

select * from final
