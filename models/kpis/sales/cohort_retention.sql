with

leads as (
    select * from {{ ref('fct_leads') }}
    where excluded_reason is null
),

month_offsets as (
    select * from {{ ref('int_month_offsets') }}
),

-- Few rows, however many leads: what followed when is all that a cohort's curve needs.
cohorts as (
    select
        month as cohort_month,
        months_to_opportunity,
        months_to_won,
        months_to_lost,
        count(*) as leads,
        -- A month has begun as soon as it has in the zone of one of the cohort's projects.
        max(max(months_since_created)) over (partition by month) as months_followed
    from leads
    group by
        month,
        months_to_opportunity,
        months_to_won,
        months_to_lost
),

followed as (
    select
        cohorts.*,
        month_offsets.months_since
    from cohorts
    inner join month_offsets on cohorts.months_followed >= month_offsets.months_since
),

counted as (
    select
        cohort_month,
        months_since,
        cast(sum(leads) as bigint) as cohort_size,
        cast(sum(case when months_to_lost < months_since then 0 else leads end) as bigint)
            as retained_leads,
        cast(
            sum(case when months_to_opportunity <= months_since then leads else 0 end) as bigint
        ) as progressed_leads,
        cast(sum(case when months_to_won <= months_since then leads else 0 end) as bigint)
            as won_leads
    from followed
    group by
        cohort_month,
        months_since
),

final as (
    select
        cohort_month,
        months_since,
        {{ add_months('cohort_month', 'months_since') }} as activity_month,
        cohort_size,
        retained_leads,
        progressed_leads,
        won_leads,
        {{ pct('retained_leads', 'cohort_size') }} as retention_rate_pct,
        {{ pct('progressed_leads', 'cohort_size') }} as progression_rate_pct,
        {{ pct('won_leads', 'cohort_size') }} as won_rate_pct,
        {{ built_at() }} as updated_at
    from counted
)

select * from final
