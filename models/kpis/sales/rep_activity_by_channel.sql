with

outreach as (
    select * from {{ ref('fct_outreach') }}
    where excluded_reason is null
),

counted as (
    select
        rep_id,
        facility_id,
        channel,
        month,
        count(*) as total_outreach,
        sum(has_response) as responses,
        sum(has_conversion) as conversions
    from outreach
    group by
        rep_id,
        facility_id,
        channel,
        month
),

rated as (
    select
        counted.*,
        {{ pct('responses', 'total_outreach') }} as response_rate_pct,
        {{ pct('conversions', 'total_outreach') }} as conversion_rate_pct
    from counted
),

final as (
    select
        rep_id,
        facility_id,
        channel,
        month,
        total_outreach,
        responses,
        conversions,
        response_rate_pct,
        conversion_rate_pct,
        rank() over (
            partition by rep_id, facility_id, month
            order by conversion_rate_pct desc, response_rate_pct desc
        ) as channel_effectiveness_rank,
        {{ built_at() }} as updated_at
    from rated
)

select * from final
