with

source as (
    select * from {{ source('settings', 'kpi_targets') }}
),

final as (
    select
        kpi_target_id,
        source_system,
        project_id,
        kpi,
        subject_type,
        subject_id,
        period,
        target,
        currency,
        effective_from,
        effective_to
    from source
)

select * from final
