{#- One row per order: what of orders_current does not depend on the present instant. -#}
{% macro orders(visits, group_visits, cycles) -%}
with

visits as (
    select * from {{ visits }} as given
),

last_visits as (
    select
        order_visits.*,
        case when group_kind = 'open' then {{ plausible_second('entered_at') }} end
            as entered_second
    from {{ visits }} as order_visits
    where is_current
),

last_group_visits as (
    select * from {{ group_visits }} as given
    where is_current
),

spans as (
    select
        order_key,
        min(entered_at) as started_at,
        max(closing_at) as closing_at
    from {{ group_visits }} as given
    group by order_key
),

default_cycles as (
    select * from {{ cycles }} as given
    where is_default
),

calendar_at_use as (
    select * from {{ ref('int_working_calendar') }}
),

calendar_at_entry as (
    select * from {{ ref('int_working_calendar') }}
),

working_days as (
    select * from {{ ref('int_working_days') }}
),

-- The status in which the limit of the running visit is, or will be, used up: waits do not count.
used_up as (
    select
        visits.order_key,
        last_group_visits.calendar_scope_id,
        {{ plausible_second('visits.entered_at') }} as entered_second,
        last_group_visits.limit_seconds
        - (visits.unpaused_seconds_before - last_group_visits.unpaused_seconds_before)
            as seconds_left
    from last_group_visits
    inner join visits
        on
            last_group_visits.order_key = visits.order_key
            and last_group_visits.group_visit_number = visits.group_visit_number
    where
        not visits.is_waiting
        and visits.unpaused_seconds_before - last_group_visits.unpaused_seconds_before
        < last_group_visits.limit_seconds
        and (
            visits.is_current
            or visits.unpaused_seconds_before + visits.working_seconds
            - last_group_visits.unpaused_seconds_before
            >= last_group_visits.limit_seconds
        )
),

due_positions as (
    select
        used_up.order_key,
        used_up.calendar_scope_id,
        used_up.entered_second + used_up.seconds_left as due_second,
        {{ working_position('used_up.entered_second', 'calendar_at_use') }}
        + used_up.seconds_left as due_position
    from used_up
    left join calendar_at_use
        on
            used_up.calendar_scope_id = calendar_at_use.calendar_scope_id
            and {{ day_of_second('used_up.entered_second') }} = calendar_at_use.utc_day
),

due as (
    select
        due_positions.order_key,
        case
            when due_positions.calendar_scope_id is null then due_positions.due_second
            else {{ second_of_position('due_positions.due_position', 'working_days') }}
        end as due_second
    from due_positions
    left join working_days
        on
            due_positions.calendar_scope_id = working_days.calendar_scope_id
            and {{ day_of_second('(due_positions.due_position - 1)') }} = working_days.position_day
            and due_positions.due_position > working_days.seconds_before
            and due_positions.due_position <= working_days.seconds_before + working_days.seconds
),

final as (
    select
        last_visits.order_key,
        last_visits.source_system,
        last_visits.project_id,
        last_visits.order_id,
        last_visits.stage_id as last_status_id,
        last_visits.stage_name as last_status_name,
        last_visits.stage_group_id as last_status_group_id,
        last_visits.group_name as last_status_group_name,
        last_visits.group_kind as last_status_group_kind,
        last_group_visits.urgent_rule_name,
        last_group_visits.is_urgent,
        last_group_visits.is_urgency_overridden,
        last_visits.is_unknown_stage as is_unknown_status,
        last_visits.group_kind = 'open' and not last_visits.is_waiting as is_clock_running,
        last_visits.is_waiting,
        spans.started_at,
        last_visits.entered_at as last_changed_at,
        last_group_visits.entered_at as group_entered_at,
        default_cycles.end_entered_at as delivery_entered_at,
        case when last_visits.group_kind != 'open' then spans.closing_at end as closed_at,
        {{ instant_of_second('due.due_second') }} as sla_due_at,
        default_cycles.seconds as cycle_seconds,
        default_cycles.working_seconds as cycle_working_seconds,
        last_group_visits.ended_seconds,
        last_group_visits.ended_working_seconds,
        last_group_visits.paused_seconds,
        last_group_visits.paused_working_seconds,
        last_group_visits.limit_seconds,
        last_group_visits.near_pct,
        last_visits.entered_second,
        case
            when last_visits.calendar_scope_id is null then last_visits.entered_second
            else {{ working_position('last_visits.entered_second', 'calendar_at_entry') }}
        end as entered_position,
        last_visits.calendar_scope_id,
        default_cycles.cycle_rule_id,
        last_group_visits.sla_rule_id
    from last_visits
    inner join last_group_visits on last_visits.order_key = last_group_visits.order_key
    inner join spans on last_visits.order_key = spans.order_key
    left join default_cycles on last_visits.order_key = default_cycles.order_key
    left join due on last_visits.order_key = due.order_key
    left join calendar_at_entry
        on
            last_visits.calendar_scope_id = calendar_at_entry.calendar_scope_id
            and {{ day_of_second('last_visits.entered_second') }} = calendar_at_entry.utc_day
)

select * from final
{%- endmacro %}
