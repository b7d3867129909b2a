with

outreach as (
    select * from {{ ref('fct_outreach') }}
    where excluded_reason is null
),

final as (
    select
        facility_id,
        month,
        count(*) as total_outreach,
        sum(has_response) as responses,
        sum(has_conversion) as conversions,
        count(distinct channel) as channels_used,
        {{ pct('sum(has_response)', 'count(*)') }} as response_rate_pct,
        {{ pct('sum(has_conversion)', 'count(*)') }} as conversion_rate_pct,
        {{ built_at() }} as updated_at
    from outreach
    group by
        facility_id,
        month
)

select * from final
