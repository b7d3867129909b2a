with

records as (
    {{ records_of_active_projects([
        ref('base_files__leads'),
        ref('base_sample__leads'),
        ref('base_salesforce__leads'),
    ]) }}
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
        upper(coalesce(records.currency, records.project_currency)) as currency,
        records.win_probability,
        coalesce(records.is_deleted, false) as is_deleted,
        {{ local_month('records.created_at', 'records.timezone') }} as created_month,
        records.timezone,
        records.created_at,
        records.sql_at,
        records.opportunity_at,
        records.won_at,
        records.lost_at,
        coalesce(records.updated_at, records.created_at) as changed_at,
        records.record_origin
    from records
)

select * from final
