with

files as (
    select * from {{ ref('base_files__satisfaction') }}
),

sample as (
    select * from {{ ref('base_sample__satisfaction') }}
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
        {{ entity_key('response_id') }} as response_key,
        records.source_system,
        records.project_id,
        records.response_id,
        coalesce(records.facility_id, 'unassigned') as facility_id,
        case
            when records.ticket_id is not null then {{ entity_key('ticket_id') }}
        end as ticket_key,
        records.survey_type,
        records.score,
        coalesce(records.is_deleted, false) as is_deleted,
        {{ local_month('records.responded_at', "coalesce(projects.timezone, 'UTC')") }}
            as responded_month,
        records.responded_at,
        records.record_origin
    from records
    left join projects
        on
            records.source_system = projects.source_system
            and records.project_id = projects.project_id
    where coalesce(projects.is_active, true)
)

select * from final
