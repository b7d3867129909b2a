with

source as (
    select * from {{ ref('sample_applications') }}
),

final as (
    select
        cast('sample' as {{ type_label() }}) as source_system,
        cast('sample' as {{ type_label() }}) as project_id,
        application_id,
        facility_id,
        status,
        submitted_at,
        due_at,
        decided_at,
        is_compliant,
        is_deleted,
        cast('seed sample_applications' as {{ type_label() }}) as record_origin
    from source
)

select * from final
