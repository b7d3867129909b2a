with

source as (
    select * from {{ source('raw_files', 'invoices') }}
),

final as (
    select
        source_system,
        project_id,
        invoice_id,
        facility_id,
        opportunity_id,
        status,
        amount,
        currency,
        issued_at,
        due_at,
        paid_at,
        is_deleted,
        {{ record_origin('source_file', 'source_line') }} as record_origin
    from source
)

select * from final
