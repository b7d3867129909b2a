with

source as (
    select * from {{ ref('sample_leads') }}
),

final as (
    select
        cast('sample' as {{ type_label() }}) as source_system,
        cast('sample' as {{ type_label() }}) as project_id,
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
        cast('seed sample_leads' as {{ type_label() }}) as record_origin
    from source
)

select * from final
