with

source as (
    select * from {{ source('settings', 'report_versions') }}
),

final as (
    select
        report_version,
        title,
        state,
        published_at
    from source
)

select * from final
