with

source as (
    select * from {{ ref('sample_outreach') }}
),

final as (
    select
        cast('sample' as {{ type_label() }}) as source_system,
        cast('sample' as {{ type_label() }}) as project_id,
        outreach_id,
        rep_id,
        facility_id,
        lead_id,
        channel,
        sent_at,
        responded_at,
        converted_at,
        is_deleted,
        cast('seed sample_outreach' as {{ type_label() }}) as record_origin
    from source
)

select * from final
