with

records as (
    {{ records_of_active_projects([ref('base_files__invoices'), ref('base_sample__invoices')]) }}
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
        upper(coalesce(records.currency, records.project_currency)) as currency,
        coalesce(records.is_deleted, false) as is_deleted,
        {{ local_month('records.issued_at', 'records.timezone') }} as issued_month,
        records.issued_at,
        records.due_at,
        records.paid_at,
        records.record_origin
    from records
)

select * from final
