with

source as (
    select * from {{ ref('sample_satisfaction') }}
),

final as (
    select
        cast('sample' as {{ type_label() }}) as source_system,
        cast('sample' as {{ type_label() }}) as project_id,
        response_id,
        facility_id,
        ticket_id,
        survey_type,
        score,
        responded_at,
        is_deleted,
        cast('seed sample_satisfaction' as {{ type_label() }}) as record_origin
    from source
)

select * from final
