with

files as (
    select * from {{ ref('base_files__invoices') }}
),

sample as (
    select * from {{ ref('base_sample__invoices') }}
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
        {{ entity_key('invoice_id') }} as invoice_key,
        records.source_system,
        records.project_id,
        records.invoice_id,
        case
            when records.opportunity_id is not null then {{ entity_key('opportunity_id') }}
        end as opportunity_key,
        coalesce(records.facility_id, 'unassigned') as facility_id,
        records.status,
        records.amount,
        upper(coalesce(records.currency, projects.currency, 'XXX')) as currency,
        coalesce(records.is_deleted, false) as is_deleted,
        {{ local_month('records.issued_at', "coalesce(projects.timezone, 'UTC')") }}
            as issued_month,
        records.issued_at,
        records.due_at,
        records.paid_at,
        records.record_origin
    from records
    left join projects
        on
            records.source_system = projects.source_system
            and records.project_id = projects.project_id
    where coalesce(projects.is_active, true)
)

select * from final
