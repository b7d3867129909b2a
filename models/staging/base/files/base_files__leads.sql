with

source as (
    select * from {{ source('raw_files', 'leads') }}
),

final as (
    select
        source_system,
        project_id,
        lead_id,
        facility_id,
        rep_id,
        stage,
        amount,
        currency,
        win_probability,
        created_at,
        sql_at,
        opportunity_at,
        won_at,
        lost_at,
        updated_at,
        is_deleted,
        {{ record_origin('source_file', 'source_line') }} as record_origin
    from source
)

select * from final
