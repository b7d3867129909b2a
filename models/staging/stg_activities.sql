with

files as (
    select * from {{ ref('base_files__activities') }}
),

projects as (
    select * from {{ ref('stg_projects') }}
),

final as (
    select
        {{ entity_key('activity_id', 'files') }} as activity_key,
        files.source_system,
        files.project_id,
        files.activity_id,
        case
            when files.lead_id is not null then {{ entity_key('lead_id', 'files') }}
        end as lead_key,
        coalesce(files.facility_id, 'unassigned') as facility_id,
        coalesce(files.rep_id, 'unassigned') as rep_id,
        files.activity_type,
        files.channel,
        files.outcome,
        coalesce(files.is_deleted, false) as is_deleted,
        files.scheduled_at,
        files.completed_at,
        files.record_origin
    from files
    left join projects
        on
            files.source_system = projects.source_system
            and files.project_id = projects.project_id
    where coalesce(projects.is_active, true)
)

select * from final
