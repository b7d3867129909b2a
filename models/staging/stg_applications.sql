with

files as (
    select * from {{ ref('base_files__applications') }}
),

sample as (
    select * from {{ ref('base_sample__applications') }}
),

projects as (
    select * from {{ ref('stg_projects') }}
),

records as (
    select * from files
    union all
    select * from sample
),

final as (
    select
        {{ entity_key('application_id') }} as application_key,
        records.source_system,
        records.project_id,
        records.application_id,
        coalesce(records.facility_id, 'unassigned') as facility_id,
        records.status,
        records.is_compliant,
        coalesce(records.is_deleted, false) as is_deleted,
        {{ local_month('records.submitted_at', "coalesce(projects.timezone, 'UTC')") }}
            as submitted_month,
        records.submitted_at,
        records.due_at,
        records.decided_at,
        records.record_origin
    from records
    left join projects
        on
            records.source_system = projects.source_system
            and records.project_id = projects.project_id
    where coalesce(projects.is_active, true)
)

select * from final
