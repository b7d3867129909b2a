{#- One row per visit of an order to a group of statuses, with the limit that it is judged by. Needs
    whole orders: urgency looks at the order's beginning. -#}
{% macro order_group_visits(visits, items) -%}
with

items as (
    select * from {{ items }} as given
),

urgent_rules as (
    select * from {{ ref('base_settings__urgent_rules') }}
),

overrides as (
    select
        records.*,
        {{ entity_key('order_id') }} as order_key
    from {{ ref('base_settings__order_overrides') }} as records
),

sla_rules as (
    select * from {{ ref('base_settings__sla_stage_rules') }}
),

thresholds as (
    select * from {{ ref('base_settings__sla_thresholds') }}
),

grouped as (
    select
        order_key,
        source_system,
        project_id,
        order_id,
        group_visit_number,
        max(stage_group_id) as stage_group_id,
        max(group_name) as group_name,
        max(group_kind) as group_kind,
        max(calendar_scope_id) as calendar_scope_id,
        max({{ flag('is_current') }}) = 1 as is_current,
        min(entered_at) as entered_at,
        min(case when is_closing then entered_at end) as closing_at,
        case when max({{ flag('is_current') }}) = 0 then max(left_at) end as left_at,
        case when count(seconds) = count(*) then cast(sum(seconds) as bigint) end as seconds,
        case when count(seconds) = count(*) then cast(sum(working_seconds) as bigint) end
            as working_seconds,
        cast(coalesce(sum(seconds), 0) as bigint) as ended_seconds,
        cast(coalesce(sum(working_seconds), 0) as bigint) as ended_working_seconds,
        cast(coalesce(sum(paused_seconds), 0) as bigint) as paused_seconds,
        cast(coalesce(sum(paused_working_seconds), 0) as bigint) as paused_working_seconds,
        min(unpaused_seconds_before) as unpaused_seconds_before
    from {{ visits }} as given
    group by
        order_key,
        source_system,
        project_id,
        order_id,
        group_visit_number
),

marks as (
    {%- for mark in ['sku', 'offer_id', 'product_id'] %}
    select
        source_system,
        project_id,
        order_id,
        cast('{{ mark }}' as {{ type_label() }}) as match_type,
        {{ mark }} as match_value
    from items
    {%- if not loop.last %}
    union all
    {%- endif %}
    {%- endfor %}
),

-- Taken from the visits, which have an index: how few items match is more than a planner can know,
-- and joining every match to every order costs minutes.
beginnings as (
    select
        order_key,
        source_system,
        project_id,
        order_id,
        entered_at
    from {{ visits }} as given
    where is_group_entry and group_visit_number = 1
),

urgent_items as (
    select
        beginnings.order_key,
        urgent_rules.rule_name,
        row_number() over (
            partition by beginnings.order_key
            order by urgent_rules.urgent_rule_id
        ) as place
    from beginnings
    inner join marks
        on
            beginnings.source_system = marks.source_system
            and beginnings.project_id = marks.project_id
            and beginnings.order_id = marks.order_id
    inner join urgent_rules
        on
            marks.source_system = urgent_rules.source_system
            and marks.project_id = urgent_rules.project_id
            and marks.match_type = urgent_rules.match_type
            and marks.match_value = urgent_rules.match_value
            and {{ in_force('urgent_rules', 'beginnings.entered_at') }}
),

urged as (
    select
        grouped.*,
        overrides.order_override_id,
        overrides.is_urgent is not null as is_urgency_overridden,
        coalesce(overrides.is_urgent, urgent_items.rule_name is not null) as is_urgent,
        case when overrides.is_urgent is null then urgent_items.rule_name end as urgent_rule_name,
        overrides.sla_profile
    from grouped
    left join urgent_items
        on
            grouped.order_key = urgent_items.order_key
            and urgent_items.place = 1
    left join overrides
        on
            grouped.order_key = overrides.order_key
            and {{ in_force('overrides', 'grouped.entered_at') }}
),

judged as (
    select
        urged.*,
        sla_rules.sla_rule_id,
        sla_rules.limit_seconds,
        coalesce(thresholds.near_pct, 80) as near_pct,
        urged.working_seconds - urged.paused_working_seconds as sla_seconds
    from urged
    left join sla_rules
        on
            urged.group_kind = 'open'
            and urged.source_system = sla_rules.source_system
            and urged.project_id = sla_rules.project_id
            and urged.stage_group_id = sla_rules.stage_group_id
            and (coalesce(urged.sla_profile = 'urgent', urged.is_urgent)) = sla_rules.is_urgent
            and {{ in_force('sla_rules', 'urged.entered_at') }}
    left join thresholds
        on
            urged.source_system = thresholds.source_system
            and urged.project_id = thresholds.project_id
            and {{ in_force('thresholds', 'urged.entered_at') }}
),

final as (
    select
        order_key,
        source_system,
        project_id,
        order_id,
        group_visit_number,
        stage_group_id,
        group_name,
        group_kind,
        urgent_rule_name,
        {{ sla_state('sla_seconds', 'limit_seconds', 'near_pct') }} as sla_state,
        is_current,
        is_urgent,
        is_urgency_overridden,
        entered_at,
        left_at,
        closing_at,
        seconds,
        working_seconds,
        sla_seconds,
        ended_seconds,
        ended_working_seconds,
        paused_seconds,
        paused_working_seconds,
        unpaused_seconds_before,
        limit_seconds,
        near_pct,
        sla_rule_id,
        order_override_id,
        calendar_scope_id
    from judged
)

select * from final
{%- endmacro %}
