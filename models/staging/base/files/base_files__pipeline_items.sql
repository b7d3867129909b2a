with

source as (
    select * from {{ source('raw_files', 'pipeline_items') }}
),

final as (
    select
        source_system,
        project_id,
        item_id,
        lead_id,
        rep_id,
        facility_id,
        sublist_id,
        stage,
        created_at,
        call_booked_at,
        call_conducted_at,
        proposal_at,
        agreement_at,
        partner_list_due_at,
        partner_list_sent_at,
        first_sale_at,
        partner_list_size,
        total_sales_from_list,
        closed_at,
        updated_at,
        is_deleted,
        {{ record_origin('source_file', 'source_line') }} as record_origin
    from source
)

select * from final
