with

records as (
    {{ records_of_active_projects([
        ref('base_files__opportunities'),
        ref('base_pipedrive__opportunities'),
        ref('base_sample__opportunities'),
        ref('base_demo__opportunities'),
        ref('base_hubspot__opportunities'),
        ref('base_salesforce__opportunities'),
        ref('base_sheet__opportunities'),
    ]) }}
),

final as (
    select
        {{ entity_key('opportunity_id') }} as opportunity_key,
        records.source_system,
        records.project_id,
        records.opportunity_id,
        case when records.lead_id is not null then {{ entity_key('lead_id') }} end as lead_key,
        coalesce(records.facility_id, 'unassigned') as facility_id,
        coalesce(records.rep_id, 'unassigned') as rep_id,
        records.name as opportunity_name,
        records.company,
        records.stage,
        records.status,
        records.amount,
        upper(coalesce(records.currency, records.project_currency)) as currency,
        records.win_probability,
        coalesce(records.is_deleted, false) as is_deleted,
        {{ local_month('records.created_at', 'records.timezone') }} as created_month,
        records.expected_close_date,
        records.created_at,
        records.closed_at,
        coalesce(records.updated_at, records.created_at) as changed_at,
        records.record_origin
    from records
)

select * from final
