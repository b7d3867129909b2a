with

source as (
    select * from {{ source('raw_files', 'opportunities') }}
),

final as (
    select
        source_system,
        project_id,
        opportunity_id,
        lead_id,
        facility_id,
        rep_id,
        name,
        company,
        stage,
        status,
        amount,
        currency,
        win_probability,
        created_at,
        closed_at,
        expected_close_date,
        updated_at,
        is_deleted,
        {{ record_origin('source_file', 'source_line') }} as record_origin
    from source
)

select * from final
