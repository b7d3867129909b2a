with

source as (
    select * from {{ source('raw_files', 'sales') }}
),

final as (
    select
        source_system,
        project_id,
        sale_id,
        item_id,
        lead_id,
        rep_id,
        facility_id,
        sold_at,
        amount,
        currency,
        is_deleted,
        {{ record_origin('source_file', 'source_line') }} as record_origin
    from source
)

select * from final
