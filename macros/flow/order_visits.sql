{#- One row per visit of an order to a status. Every window lies within one order, so that the visits
    of some orders are computed from the intervals of these orders alone. A run that is given an `as_of`
    knows no later visit; any other knows all, as live views show what came after the run. -#}
{% macro order_visits(intervals, deleted_entities) -%}
{%- set is_of_the_past = given_as_of() != '' -%}
with

intervals as (
    select
        records.*,
        {{ entity_key('entity_id') }} as order_key,
        {% if is_of_the_past -%}
            lead(entered_at) over (
                partition by source_system, project_id, entity_id
                order by visit_number
            )
        {%- else -%} left_at {%- endif %} as known_left_at
    from {{ intervals }} as records
    where
        entity_type = 'order'
        {%- if is_of_the_past %}
        and {{ has_happened('entered_at') }}
        {%- endif %}
),

deleted as (
    select {{ entity_key('entity_id') }} as order_key
    from {{ deleted_entities }} as records
    where entity_type = 'order'
),

stages as (
    select * from {{ ref('base_settings__stages') }}
),

stage_groups as (
    select * from {{ ref('base_settings__stage_groups') }}
),

waiting_stages as (
    select * from {{ ref('base_settings__waiting_stages') }}
),

named as (
    select
        intervals.order_key,
        intervals.source_system,
        intervals.project_id,
        intervals.entity_id as order_id,
        intervals.visit_number,
        intervals.stage_id,
        stages.stage_name,
        intervals.stage_group_id,
        stage_groups.group_name,
        intervals.group_kind,
        stages.stage_id is null as is_unknown_stage,
        waiting_stages.stage_id is not null as is_waiting,
        intervals.known_left_at is null as is_current,
        intervals.is_inferred,
        intervals.entered_at,
        intervals.known_left_at as left_at,
        case when intervals.known_left_at = intervals.left_at then intervals.seconds end as seconds,
        case when intervals.known_left_at = intervals.left_at then intervals.working_seconds end
            as working_seconds,
        intervals.calendar_scope_id,
        intervals.delivery_id,
        intervals.record_origin
    from intervals
    left join stages
        on
            intervals.source_system = stages.source_system
            and intervals.project_id = stages.project_id
            and intervals.stage_id = stages.stage_id
    left join stage_groups
        on
            intervals.source_system = stage_groups.source_system
            and intervals.project_id = stage_groups.project_id
            and intervals.stage_group_id = stage_groups.group_id
    left join waiting_stages
        on
            intervals.source_system = waiting_stages.source_system
            and intervals.project_id = waiting_stages.project_id
            and intervals.stage_id = waiting_stages.stage_id
            and {{ in_force('waiting_stages', 'intervals.entered_at') }}
    where not exists (select 1 from deleted where intervals.order_key = deleted.order_key)
),

compared as (
    select
        named.*,
        row_number() over in_order as place,
        lag(stage_group_id) over in_order as previous_group_id,
        lag(group_kind, 1, 'open') over in_order as previous_group_kind
    from named
    window in_order as (
        partition by order_key
        order by visit_number
    )
),

entered as (
    select
        compared.*,
        (place = 1 or (stage_group_id is distinct from previous_group_id)) as is_group_entry,
        (previous_group_kind = 'open' and group_kind != 'open') as is_closing
    from compared
),

final as (
    select
        order_key,
        source_system,
        project_id,
        order_id,
        visit_number,
        stage_id,
        stage_name,
        stage_group_id,
        group_name,
        group_kind,
        cast(sum({{ flag('is_group_entry') }}) over so_far as integer) as group_visit_number,
        is_group_entry,
        is_closing,
        is_unknown_stage,
        is_waiting,
        is_current,
        is_inferred,
        entered_at,
        left_at,
        seconds,
        working_seconds,
        case when is_waiting then seconds when seconds is not null then 0 end as paused_seconds,
        case when is_waiting then working_seconds when seconds is not null then 0 end
            as paused_working_seconds,
        cast(coalesce(sum(working_seconds) over before, 0) as bigint) as working_seconds_before,
        cast(coalesce(
            sum(case when not is_waiting then working_seconds end) over before, 0
        ) as bigint) as unpaused_seconds_before,
        calendar_scope_id,
        delivery_id,
        record_origin
    from entered
    window
        so_far as (
            partition by order_key
            order by visit_number
            rows between unbounded preceding and current row
        ),
        before as (
            partition by order_key
            order by visit_number
            rows between unbounded preceding and 1 preceding
        )
)

select * from final
{%- endmacro %}
