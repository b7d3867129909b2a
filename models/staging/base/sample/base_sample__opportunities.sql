with

source as (
    select * from {{ ref('sample_opportunities') }}
),

final as (
    select
        cast('sample' as {{ type_label() }}) as source_system,
        cast('sample' as {{ type_label() }}) as project_id,
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
        cast('seed sample_opportunities' as {{ type_label() }}) as record_origin
    from source
)

select * from final
