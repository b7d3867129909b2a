{#- One row per visit of an entity to a stage. Every window lies within one entity, so that the visits
    of some entities are computed from the events of these alone. -#}
{% macro stage_intervals(events) -%}
with

events as (
    select * from {{ events }} as given
),

stages as (
    select * from {{ ref('base_settings__stages') }}
),

stage_groups as (
    select * from {{ ref('base_settings__stage_groups') }}
),

scopes as (
    select * from {{ ref('int_calendar_scopes') }}
),

-- One for each use: PostgreSQL would read what is used twice whole, however few rows are needed.
calendar_at_start as (
    select * from {{ ref('int_working_calendar') }}
),

calendar_at_end as (
    select * from {{ ref('int_working_calendar') }}
),

groups as (
    select
        source_system,
        project_id,
        group_id
    from stage_groups
    union
    select
        source_system,
        project_id,
        stage_group_id as group_id
    from scopes
    where stage_group_id is not null
),

-- What is known of a group, in one place: every event is looked up in it.
known_groups as (
    select
        groups.source_system,
        groups.project_id,
        groups.group_id,
        stage_groups.group_kind,
        scopes.calendar_scope_id
    from groups
    left join stage_groups
        on
            groups.source_system = stage_groups.source_system
            and groups.project_id = stage_groups.project_id
            and groups.group_id = stage_groups.group_id
    left join scopes
        on
            groups.source_system = scopes.source_system
            and groups.project_id = scopes.project_id
            and groups.group_id = scopes.stage_group_id
),

project_scopes as (
    select
        source_system,
        project_id,
        calendar_scope_id
    from scopes
    where stage_group_id is null
),

-- Seconds are counted here, beside the windows, and not where they are used: PostgreSQL would count
-- them again at each use.
entries as (
    select
        source_system,
        project_id,
        entity_type,
        entity_id,
        pipeline_id,
        stage_id,
        stage_group_id,
        previous_stage_id,
        delivery_id,
        entered_at,
        case when not {{ is_implausible('entity_created_at') }} then entity_created_at end
            as entity_created_at,
        record_origin,
        row_number() over in_order as place,
        lead(entered_at) over in_order as left_at,
        {{ plausible_second('entered_at') }} as entered_second,
        lead({{ plausible_second('entered_at') }}) over in_order as left_second
    from events
    window in_order as (
        partition by source_system, project_id, entity_type, entity_id
        order by
            entered_at,
            source_sequence nulls last,
            ingested_at nulls last,
            delivery_id nulls last,
            stage_id
    )
),

parts as (
    select n from ({{ whole_numbers(1) }}) as numbers
),

-- Time between the creation of an order and the first that was heard of it was spent somewhere: in
-- the stage that it came from (part 0), where that is known, else in the first one seen.
visits as (
    select
        entries.source_system,
        entries.project_id,
        entries.entity_type,
        entries.entity_id,
        case when parts.n = 1 then entries.pipeline_id end as pipeline_id,
        case when parts.n = 1 then entries.stage_id else entries.previous_stage_id end as stage_id,
        case when parts.n = 1 then entries.stage_group_id end as stage_group_id,
        entries.delivery_id,
        entries.record_origin,
        entries.place * parts.n as visit_number,
        parts.n = 0 as is_inferred,
        case
            when
                entries.place = 1
                and (parts.n = 0 or entries.previous_stage_id is null)
                and entries.entity_created_at < entries.entered_at
                then entries.entity_created_at
            else entries.entered_at
        end as entered_at,
        case when parts.n = 1 then entries.left_at else entries.entered_at end as left_at,
        case
            when
                entries.place = 1
                and (parts.n = 0 or entries.previous_stage_id is null)
                and entries.entity_created_at < entries.entered_at
                then {{ epoch_second('entries.entity_created_at') }}
            else entries.entered_second
        end as entered_second,
        case when parts.n = 1 then entries.left_second else entries.entered_second end
            as left_second
    from entries
    inner join parts
        on
            parts.n = 1
            or (
                entries.place = 1
                and entries.previous_stage_id is not null
                and entries.entity_created_at < entries.entered_at
            )
),

staged as (
    select
        visits.*,
        coalesce(visits.pipeline_id, stages.pipeline_id) as pipeline_of_stage_id,
        coalesce(visits.stage_group_id, stages.stage_group_id) as group_id
    from visits
    left join stages
        on
            visits.source_system = stages.source_system
            and visits.project_id = stages.project_id
            and visits.stage_id = stages.stage_id
),

placed as (
    select
        staged.*,
        coalesce(known_groups.group_kind, 'open') as group_kind,
        coalesce(known_groups.calendar_scope_id, project_scopes.calendar_scope_id)
            as calendar_scope_id
    from staged
    left join known_groups
        on
            staged.source_system = known_groups.source_system
            and staged.project_id = known_groups.project_id
            and staged.group_id = known_groups.group_id
    left join project_scopes
        on
            staged.source_system = project_scopes.source_system
            and staged.project_id = project_scopes.project_id
),

final as (
    select
        placed.source_system,
        placed.project_id,
        placed.entity_type,
        placed.entity_id,
        placed.visit_number,
        placed.pipeline_of_stage_id as pipeline_id,
        placed.stage_id,
        placed.group_id as stage_group_id,
        placed.group_kind,
        placed.entered_at,
        placed.left_at,
        placed.left_at is null as is_current,
        placed.is_inferred,
        placed.left_second - placed.entered_second as seconds,
        case
            when placed.calendar_scope_id is null
                then placed.left_second - placed.entered_second
            else
                {{ working_position('placed.left_second', 'calendar_at_end') }}
                - ({{ working_position('placed.entered_second', 'calendar_at_start') }})
        end as working_seconds,
        placed.calendar_scope_id,
        placed.delivery_id,
        placed.record_origin
    from placed
    left join calendar_at_start
        on
            placed.calendar_scope_id = calendar_at_start.calendar_scope_id
            and {{ day_of_second('placed.entered_second') }} = calendar_at_start.utc_day
    left join calendar_at_end
        on
            placed.calendar_scope_id = calendar_at_end.calendar_scope_id
            and {{ day_of_second('placed.left_second') }} = calendar_at_end.utc_day
)

select * from final
{%- endmacro %}
