{{ config(
    materialized='table',
    indexes=[{'columns': ['source_system', 'project_id', 'stage_id']}],
    post_hook=['{{ gather_statistics(this) }}', '{{ remember_flow_position() }}'],
) }}

with

map_rows as (
    select * from {{ ref('base_settings__stage_map') }}
),

versions as (
    select * from {{ ref('base_settings__report_versions') }}
),

substages as (
    select * from {{ ref('canonical_substages') }}
),

boundaries as (
    select * from {{ ref('canonical_stage_boundaries') }}
),

seen as (
    {{ visited_stages(ref('int_stage_intervals')) }}
),

candidates as (
    select
        map_rows.report_version,
        seen.source_system,
        seen.project_id,
        seen.pipeline_id,
        seen.stage_id,
        map_rows.map_id,
        map_rows.sub_key,
        substages.major_key,
        map_rows.effective_from,
        map_rows.effective_to,
        case when map_rows.stage_id is null then 0 else 2 end
        + case when map_rows.pipeline_id is null then 0 else 1 end as specificity
    from seen
    inner join map_rows
        on
            seen.source_system = map_rows.source_system
            and seen.project_id = map_rows.project_id
            and (map_rows.pipeline_id is null or seen.pipeline_id = map_rows.pipeline_id)
            and (map_rows.stage_id is null or seen.stage_id = map_rows.stage_id)
    inner join versions
        on
            map_rows.report_version = versions.report_version
            and versions.state = 'published'
    inner join substages on map_rows.sub_key = substages.sub_key
),

changes as (
    select
        report_version,
        source_system,
        project_id,
        pipeline_id,
        stage_id,
        effective_from as valid_from
    from candidates
    union distinct
    select
        report_version,
        source_system,
        project_id,
        pipeline_id,
        stage_id,
        effective_to as valid_from
    from candidates
    where effective_to is not null
),

-- Between two changes of any candidate, the same ones are in force.
stretches as (
    select
        changes.*,
        lead(valid_from) over (
            partition by report_version, source_system, project_id, pipeline_id, stage_id
            order by valid_from
        ) as valid_to
    from changes
),

ranked_rows as (
    select
        stretches.report_version,
        stretches.source_system,
        stretches.project_id,
        stretches.pipeline_id,
        stretches.stage_id,
        candidates.map_id,
        candidates.sub_key,
        candidates.major_key,
        stretches.valid_from,
        stretches.valid_to,
        row_number() over (
            partition by
                stretches.report_version,
                stretches.source_system,
                stretches.project_id,
                stretches.pipeline_id,
                stretches.stage_id,
                stretches.valid_from
            order by candidates.specificity desc
        ) as place
    from stretches
    inner join candidates
        on
            stretches.report_version = candidates.report_version
            and stretches.source_system = candidates.source_system
            and stretches.project_id = candidates.project_id
            and coalesce(stretches.pipeline_id, '') = coalesce(candidates.pipeline_id, '')
            and (stretches.pipeline_id is null) = (candidates.pipeline_id is null)
            and stretches.stage_id = candidates.stage_id
            and stretches.valid_from >= candidates.effective_from
            and (
                candidates.effective_to is null
                or stretches.valid_from < candidates.effective_to
            )
),

final as (
    select
        ranked_rows.report_version,
        ranked_rows.source_system,
        ranked_rows.project_id,
        ranked_rows.pipeline_id,
        ranked_rows.stage_id,
        ranked_rows.map_id,
        ranked_rows.sub_key,
        ranked_rows.major_key,
        ranked_rows.sub_key = boundaries.entry_sub_key as is_entry,
        ranked_rows.sub_key = boundaries.exit_sub_key as is_exit,
        ranked_rows.valid_from,
        ranked_rows.valid_to
    from ranked_rows
    inner join boundaries on ranked_rows.major_key = boundaries.major_key
    where ranked_rows.place = 1
)

select * from final
