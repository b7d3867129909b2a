with

source as (
    select * from {{ ref('sample_invoices') }}
),

final as (
    select
        cast('sample' as {{ type_label() }}) as source_system,
        cast('sample' as {{ type_label() }}) as project_id,
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
        cast('seed sample_invoices' as {{ type_label() }}) as record_origin
    from source
)

select * from final
