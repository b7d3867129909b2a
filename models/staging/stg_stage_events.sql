with

files as (
    select * from {{ ref('base_files__stage_events') }}
),

projects as (
    select * from {{ ref('stg_projects') }}
),

final as (
    select
        files.source_system,
        files.project_id,
        coalesce(files.entity_type, 'deal') as entity_type,
        files.entity_id,
        files.pipeline_id,
        files.stage_id,
        files.stage_group_id,
        files.sequence as source_sequence,
        files.entered_at,
        files.record_origin
    from files
    left join projects
        on
            files.source_system = projects.source_system
            and files.project_id = projects.project_id
    where coalesce(projects.is_active, true)
)

select * from final
