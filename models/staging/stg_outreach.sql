with

files as (
    select * from {{ ref('base_files__outreach') }}
),

sample as (
    select * from {{ ref('base_sample__outreach') }}
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
        {{ entity_key('outreach_id') }} as outreach_key,
        records.source_system,
        records.project_id,
        records.outreach_id,
        case when records.lead_id is not null then {{ entity_key('lead_id') }} end as lead_key,
        coalesce(records.facility_id, 'unassigned') as facility_id,
        coalesce(records.rep_id, 'unassigned') as rep_id,
        records.channel,
        coalesce(records.is_deleted, false) as is_deleted,
        {{ local_month('records.sent_at', "coalesce(projects.timezone, 'UTC')") }} as sent_month,
        records.sent_at,
        records.responded_at,
        records.converted_at,
        records.record_origin
    from records
    left join projects
        on
            records.source_system = projects.source_system
            and records.project_id = projects.project_id
    where coalesce(projects.is_active, true)
)

select * from final
