{{ config(
    materialized='table',
    pre_hook="{{ begin_flow_changes() }}",
    indexes=[
        {'columns': ['source_system', 'project_id', 'entity_type', 'entity_id'], 'unique': true},
    ],
    post_hook='{{ gather_statistics(this) }}',
) }}

{%- set since = over_flow_positions('min(position)') %}
{%- set visits = built_visits() %}
{%- set earlier = over_flow_positions('least(min(as_of), ' ~ as_of() ~ ')') %}
{%- set later = over_flow_positions('greatest(max(as_of), ' ~ as_of() ~ ')') %}

with

settings_changes as (
    select * from {{ ref('base_settings__changes') }}
    where {{ is_written_since('written_xid', since) }}
),

report_versions as (
    select * from {{ ref('base_settings__report_versions') }}
),

calendars as (
    select * from {{ ref('base_settings__calendars') }}
),

-- What a change of a setting touches: the visits that match; null matches all.
scopes as (
    -- The visits of a stage, or of a pipeline, that a computed version maps otherwise now.
    select
        settings_changes.source_system,
        settings_changes.project_id,
        settings_changes.pipeline_id,
        settings_changes.stage_id,
        cast(null as {{ type_label() }}) as stage_group_id,
        cast(null as {{ type_label() }}) as entity_id
    from settings_changes
    inner join report_versions
        on settings_changes.report_version = report_versions.report_version
    where
        settings_changes.table_name = 'stage_map_scd'
        and report_versions.state = 'published'
    union all
    select
        calendars.source_system,
        calendars.project_id,
        null as pipeline_id,
        null as stage_id,
        calendars.stage_group_id,
        null as entity_id
    from settings_changes
    inner join calendars
        on settings_changes.calendar_id = calendars.calendar_id
    where settings_changes.table_name = 'calendar_windows'
    union all
    select
        source_system,
        project_id,
        null as pipeline_id,
        case when table_name in ('stage_dictionary', 'waiting_stages') then stage_id end
            as stage_id,
        case
            when table_name in ('calendars', 'stage_group_dictionary', 'sla_stage_rules')
                then stage_group_id
        end as stage_group_id,
        case when table_name = 'order_overrides' then order_id end as entity_id
    from settings_changes
    where
        table_name in (
            'projects', 'calendars', 'day_exceptions', 'stage_dictionary',
            'stage_group_dictionary', 'sla_stage_rules', 'sla_thresholds', 'waiting_stages',
            'urgent_rules', 'cycle_rules', 'order_overrides'
        )
),

whole_projects as (
    select distinct
        source_system,
        project_id
    from scopes
    where
        pipeline_id is null
        and stage_id is null
        and stage_group_id is null
        and entity_id is null
),

{%- if visits is not none %}

parts_of_projects as (
    select distinct
        source_system,
        project_id,
        pipeline_id,
        stage_id,
        stage_group_id,
        entity_id
    from scopes
    where
        pipeline_id is not null
        or stage_id is not null
        or stage_group_id is not null
        or entity_id is not null
),
{%- endif %}

changed as (
    select
        source_system,
        project_id,
        entity_type,
        entity_id
    from {{ entity_changes() }} as entities
    where {{ is_written_since('written_xid', since) }}
    union all
    select
        entities.source_system,
        entities.project_id,
        entities.entity_type,
        entities.entity_id
    from {{ entity_changes() }} as entities
    inner join whole_projects
        on
            entities.source_system = whole_projects.source_system
            and entities.project_id = whole_projects.project_id
    union all
    -- A version that is computed now, or no more, shows all there is, mapped or not.
    select
        source_system,
        project_id,
        entity_type,
        entity_id
    from {{ entity_changes() }} as entities
    where
        exists (
            select 1
            from settings_changes
            where
                settings_changes.table_name = 'report_versions'
                and settings_changes.version_state != 'draft'
        )
    {%- if visits is not none %}
    union all
    -- What lay ahead and has come to pass since, or the other way round.
    select
        source_system,
        project_id,
        entity_type,
        entity_id
    from {{ visits }}
    where
        {{ is_any_visit_after(earlier) }}
        and entered_at > {{ earlier }}
        and entered_at <= {{ later }}
    union all
    select
        source_system,
        project_id,
        entity_type,
        entity_id
    from {{ entity_changes() }} as entities
    where
        stated_at > {{ earlier }}
        and stated_at <= {{ later }}
    union all
    select
        visits.source_system,
        visits.project_id,
        visits.entity_type,
        visits.entity_id
    from {{ visits }} as visits
    inner join parts_of_projects
        on
            visits.source_system = parts_of_projects.source_system
            and visits.project_id = parts_of_projects.project_id
            and (
                visits.pipeline_id = parts_of_projects.pipeline_id
                or parts_of_projects.pipeline_id is null
            )
            and (
                visits.stage_id = parts_of_projects.stage_id
                or parts_of_projects.stage_id is null
            )
            and (
                visits.stage_group_id = parts_of_projects.stage_group_id
                or parts_of_projects.stage_group_id is null
            )
            and (
                visits.entity_id = parts_of_projects.entity_id
                or parts_of_projects.entity_id is null
            )
    {%- endif %}
),

final as (
    select distinct
        source_system,
        project_id,
        entity_type,
        entity_id
    from changed
)

select * from final
