{#- One row per order and cycle that applies to it: when it began and ended. The rules are those in
    force when the order began; what an order's own override states replaces its end or beginning in
    the project's default cycle, or makes a cycle of its own (number 0) where there is none. -#}
{% macro order_cycles(visits, group_visits) -%}
with

visits as (
    select * from {{ visits }} as given
),

group_visits as (
    select * from {{ group_visits }} as given
),

rules as (
    select * from {{ ref('base_settings__cycle_rules') }}
),

overrides as (
    select * from {{ ref('base_settings__order_overrides') }}
),

orders as (
    select
        group_visits.order_key,
        group_visits.source_system,
        group_visits.project_id,
        group_visits.order_id,
        min(group_visits.entered_at) as started_at,
        max(case when group_visits.is_current then group_visits.order_override_id end)
            as order_override_id
    from group_visits
    group by
        group_visits.order_key,
        group_visits.source_system,
        group_visits.project_id,
        group_visits.order_id
),

own_cycles as (
    select
        order_override_id,
        cycle_start_group_id,
        cycle_start_stage_id,
        cycle_end_group_id,
        cycle_end_stage_id,
        coalesce(cycle_start_group_id, cycle_start_stage_id) is not null as has_start,
        coalesce(cycle_end_group_id, cycle_end_stage_id) is not null as has_end
    from overrides
),

cycles as (
    select
        orders.order_key,
        orders.source_system,
        orders.project_id,
        orders.order_id,
        rules.cycle_rule_id,
        rules.title,
        false as is_default,
        false as is_overridden,
        rules.start_group_id,
        rules.start_stage_id,
        rules.end_group_id,
        rules.end_stage_id
    from orders
    inner join rules
        on
            not rules.is_default
            and orders.source_system = rules.source_system
            and orders.project_id = rules.project_id
            and {{ in_force('rules', 'orders.started_at') }}
    union all
    select
        orders.order_key,
        orders.source_system,
        orders.project_id,
        orders.order_id,
        coalesce(rules.cycle_rule_id, 0) as cycle_rule_id,
        coalesce(rules.title, 'override') as title,
        true as is_default,
        coalesce(own_cycles.has_start or own_cycles.has_end, false) as is_overridden,
        case
            when own_cycles.has_start then own_cycles.cycle_start_group_id
            else rules.start_group_id
        end as start_group_id,
        case
            when own_cycles.has_start then own_cycles.cycle_start_stage_id
            else rules.start_stage_id
        end as start_stage_id,
        case
            when own_cycles.has_end then own_cycles.cycle_end_group_id
            else rules.end_group_id
        end as end_group_id,
        case
            when own_cycles.has_end then own_cycles.cycle_end_stage_id
            else rules.end_stage_id
        end as end_stage_id
    from orders
    left join rules
        on
            rules.is_default
            and orders.source_system = rules.source_system
            and orders.project_id = rules.project_id
            and {{ in_force('rules', 'orders.started_at') }}
    left join own_cycles
        on orders.order_override_id = own_cycles.order_override_id
    where
        rules.cycle_rule_id is not null
        or (own_cycles.has_start and own_cycles.has_end)
),

reached as (
    select
        cycles.*,
        visits.entered_at,
        visits.working_seconds_before,
        visits.stage_id = cycles.start_stage_id
        or (visits.is_group_entry and visits.stage_group_id = cycles.start_group_id) as is_start,
        visits.stage_id = cycles.end_stage_id
        or (visits.is_group_entry and visits.stage_group_id = cycles.end_group_id) as is_end
    from cycles
    left join visits
        on
            cycles.order_key = visits.order_key
            and (
                visits.stage_id in (cycles.start_stage_id, cycles.end_stage_id)
                or (
                    visits.is_group_entry
                    and visits.stage_group_id in (cycles.start_group_id, cycles.end_group_id)
                )
            )
),

begun as (
    select
        reached.*,
        min(case when is_start then entered_at end) over (
            partition by order_key, cycle_rule_id
        ) as start_at
    from reached
),

timed as (
    select
        order_key,
        source_system,
        project_id,
        order_id,
        cycle_rule_id,
        title,
        is_default,
        is_overridden,
        start_group_id,
        start_stage_id,
        end_group_id,
        end_stage_id,
        start_at,
        min(case when is_end and entered_at >= start_at then entered_at end) as end_at,
        min(case when is_end then entered_at end) as first_end_at,
        min(case when is_start then working_seconds_before end) as working_seconds_to_start,
        min(case when is_end and entered_at >= start_at then working_seconds_before end)
            as working_seconds_to_end
    from begun
    group by
        order_key,
        source_system,
        project_id,
        order_id,
        cycle_rule_id,
        title,
        is_default,
        is_overridden,
        start_group_id,
        start_stage_id,
        end_group_id,
        end_stage_id,
        start_at
),

measured as (
    select
        timed.*,
        {{ plausible_second('end_at') }} - {{ plausible_second('start_at') }} as seconds
    from timed
),

final as (
    select
        order_key,
        source_system,
        project_id,
        order_id,
        cycle_rule_id,
        title,
        is_default,
        is_overridden,
        start_group_id,
        start_stage_id,
        end_group_id,
        end_stage_id,
        start_at,
        end_at,
        coalesce(end_at, case when start_at is null then first_end_at end) as end_entered_at,
        seconds,
        case when seconds is not null then working_seconds_to_end - working_seconds_to_start end
            as working_seconds
    from measured
)

select * from final
{%- endmacro %}
