with

files as (
    select * from {{ ref('base_files__leads') }}
),

sample as (
    select * from {{ ref('base_sample__leads') }}
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
        {{ entity_key('lead_id') }} as lead_key,
        records.source_system,
        records.project_id,
        records.lead_id,
        coalesce(records.facility_id, 'unassigned') as facility_id,
        coalesce(records.rep_id, 'unassigned') as rep_id,
        records.stage,
        records.amount,
        upper(coalesce(records.currency, projects.currency, 'XXX')) as currency,
        records.win_probability,
        coalesce(records.is_deleted, false) as is_deleted,
        {{ local_month('records.created_at', "coalesce(projects.timezone, 'UTC')") }}
            as created_month,
        coalesce(projects.timezone, 'UTC') as timezone,
        records.created_at,
        records.sql_at,
        records.opportunity_at,
        records.won_at,
        records.lost_at,
        coalesce(records.updated_at, records.created_at) as changed_at,
        records.record_origin
    from records
    left join projects
        on
            records.source_system = projects.source_system
            and records.project_id = projects.project_id
    where coalesce(projects.is_active, true)
)

select * from final
