{{ config(
    materialized=flow_materialized(),
    incremental_strategy='by_entity',
    on_schema_change='append_new_columns',
    post_hook=['{{ gather_statistics(this) }}', '{{ remember_flow_position() }}'],
) }}

with

visits as (
    select * from {{ ref('int_stage_intervals') }}
    {{ where_changed() }}
),

deleted_entities as (
    select * from {{ ref('int_deleted_entities') }}
),

versions as (
    select * from {{ ref('base_settings__report_versions') }}
    where state = 'published'
),

stage_map as (
    select * from {{ ref('int_stage_map') }}
),

-- What had happened by then; what is impossible shows, flagged, and ends the visit before it.
known as (
    select
        visits.*,
        lead(visits.entered_at) over (
            partition by
                visits.source_system, visits.project_id, visits.entity_type, visits.entity_id
            order by visits.visit_number
        ) as known_left_at
    from visits
    left join deleted_entities
        on
            visits.source_system = deleted_entities.source_system
            and visits.project_id = deleted_entities.project_id
            and visits.entity_type = deleted_entities.entity_type
            and visits.entity_id = deleted_entities.entity_id
    where
        deleted_entities.entity_id is null
        and {{ has_happened('visits.entered_at') }}
),

aged as (
    select
        known.*,
        coalesce(sum(seconds) over before_it, 0) as age,
        coalesce(sum(working_seconds) over before_it, 0) as working_age
    from known
    window before_it as (
        partition by source_system, project_id, entity_type, entity_id
        order by visit_number
        rows between unbounded preceding and 1 preceding
    )
),

final as (
    select
        versions.report_version,
        aged.source_system,
        aged.project_id,
        aged.entity_type,
        aged.entity_id,
        aged.visit_number,
        aged.pipeline_id,
        aged.stage_id,
        aged.stage_group_id,
        aged.group_kind,
        stage_map.sub_key,
        stage_map.major_key,
        coalesce(stage_map.is_entry, false) as is_entry,
        coalesce(stage_map.is_exit, false) as is_exit,
        aged.delivery_id,
        aged.record_origin,
        aged.known_left_at is null as is_current,
        aged.is_inferred,
        case when aged.known_left_at = aged.left_at then aged.seconds end as seconds,
        case when aged.known_left_at = aged.left_at then aged.working_seconds end
            as working_seconds,
        case when not {{ is_implausible('aged.entered_at') }} then cast(aged.age as bigint) end
            as age_seconds,
        case
            when not {{ is_implausible('aged.entered_at') }} then cast(aged.working_age as bigint)
        end as age_working_seconds,
        aged.entered_at,
        aged.known_left_at as left_at,
        {{ built_at() }} as updated_at
    from aged
    cross join versions
    left join stage_map
        on
            versions.report_version = stage_map.report_version
            and aged.source_system = stage_map.source_system
            and aged.project_id = stage_map.project_id
            and coalesce(aged.pipeline_id, '') = coalesce(stage_map.pipeline_id, '')
            and (aged.pipeline_id is null) = (stage_map.pipeline_id is null)
            and aged.stage_id = stage_map.stage_id
            and aged.entered_at >= stage_map.valid_from
            and (stage_map.valid_to is null or aged.entered_at < stage_map.valid_to)
)

select * from final
