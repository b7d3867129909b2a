{#- How orders stand at an instant: a few sums, and one join to the calendar's day of the instant. -#}
{% macro orders_at(orders, instant) -%}
with

orders as (
    select * from {{ orders }} as given
),

calendar as (
    select * from {{ ref('int_working_calendar') }}
),

moment as (
    select {{ epoch_second(instant) }} as second
),

calendars_now as (
    select
        calendar.calendar_scope_id,
        {{ working_position('moment.second', 'calendar') }} as position
    from calendar
    inner join moment on {{ day_of_second('moment.second') }} = calendar.utc_day
),

passed as (
    select
        orders.*,
        greatest(0, moment.second - orders.entered_second) as seconds,
        greatest(
            0,
            case
                when orders.calendar_scope_id is null then moment.second
                else calendars_now.position
            end - orders.entered_position
        ) as working_seconds
    from orders
    cross join moment
    left join calendars_now on orders.calendar_scope_id = calendars_now.calendar_scope_id
),

measured as (
    select
        passed.*,
        case when entered_second is not null then ended_seconds + seconds end as stage_seconds,
        case when entered_second is not null then ended_working_seconds + working_seconds end
            as stage_working_seconds,
        case
            when entered_second is not null
                then paused_seconds + case when is_waiting then seconds else 0 end
        end as sla_paused_seconds,
        case
            when entered_second is not null
                then paused_working_seconds + case when is_waiting then working_seconds else 0 end
        end as sla_paused_working_seconds
    from passed
),

final as (
    select
        source_system,
        project_id,
        order_id,
        last_status_id,
        last_status_name,
        last_status_group_id,
        last_status_group_name,
        last_status_group_kind,
        {{ sla_state(
            '(stage_working_seconds - sla_paused_working_seconds)', 'limit_seconds', 'near_pct'
        ) }} as sla_state,
        urgent_rule_name,
        is_urgent,
        is_urgency_overridden,
        is_unknown_status,
        is_clock_running,
        started_at,
        last_changed_at,
        group_entered_at,
        delivery_entered_at,
        closed_at,
        sla_due_at,
        cycle_seconds as cycle_duration_to_delivery,
        cycle_working_seconds as cycle_working_duration_to_delivery,
        stage_seconds,
        stage_working_seconds,
        stage_working_seconds - sla_paused_working_seconds as sla_elapsed_seconds,
        sla_paused_seconds,
        sla_paused_working_seconds,
        limit_seconds as sla_limit_seconds,
        case when sla_rule_id is not null then near_pct end as sla_near_pct,
        cycle_rule_id as cycle_rule_id_applied,
        sla_rule_id as sla_rule_id_applied,
        calendar_scope_id as calendar_scope_id_applied
    from measured
)

select * from final
{%- endmacro %}
