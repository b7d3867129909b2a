with

opportunities as (
    select * from {{ ref('fct_opportunities') }}
    where excluded_reason is null
),

summed as (
    select
        facility_id,
        month,
        currency,
        count(*) as opportunities,
        sum(is_open) as open_opportunities,
        sum(is_won) as won_opportunities,
        sum(is_lost) as lost_opportunities,
        sum(has_impossible_duration) as impossible_durations,
        coalesce(sum(amount), 0) as total_value,
        coalesce(sum(amount * is_open), 0) as open_value,
        coalesce(sum(amount * is_won), 0) as won_value,
        coalesce(sum(amount * is_lost), 0) as lost_value,
        avg(case when is_won = 1 then amount end) as avg_won_value,
        count(sales_cycle_seconds) as sales_cycles,
        {{ mean_seconds('sales_cycle_seconds') }} as avg_sales_cycle_seconds,
        {{ percentile_seconds(0.5, 'sales_cycle_seconds') }} as p50_sales_cycle_seconds,
        {{ percentile_seconds(0.85, 'sales_cycle_seconds') }} as p85_sales_cycle_seconds,
        {{ percentile_seconds(0.95, 'sales_cycle_seconds') }} as p95_sales_cycle_seconds,
        {{ mean_seconds('age_seconds') }} as avg_open_age_seconds,
        {{ percentile_seconds(0.5, 'age_seconds') }} as p50_open_age_seconds,
        {{ percentile_seconds(0.85, 'age_seconds') }} as p85_open_age_seconds,
        {{ percentile_seconds(0.95, 'age_seconds') }} as p95_open_age_seconds
    from opportunities
    group by
        facility_id,
        month,
        currency
),

final as (
    select
        facility_id,
        month,
        currency,
        opportunities,
        open_opportunities,
        won_opportunities,
        lost_opportunities,
        impossible_durations,
        total_value,
        open_value,
        won_value,
        lost_value,
        round(avg_won_value, 2) as avg_won_value,
        {{ pct('won_opportunities', '(won_opportunities + lost_opportunities)') }} as win_rate_pct,
        {{ pct('won_value', '(won_value + lost_value)') }} as win_rate_by_amount_pct,
        sales_cycles,
        avg_sales_cycle_seconds,
        p50_sales_cycle_seconds,
        p85_sales_cycle_seconds,
        p95_sales_cycle_seconds,
        avg_open_age_seconds,
        p50_open_age_seconds,
        p85_open_age_seconds,
        p95_open_age_seconds,
        round(
            open_opportunities
            * cast(won_opportunities as {{ type_number() }})
            / nullif(won_opportunities + lost_opportunities, 0)
            * avg_won_value
            / nullif(cast(avg_sales_cycle_seconds as {{ type_number() }}) / 86400, 0),
            2
        ) as sales_velocity_per_day,
        {{ built_at() }} as updated_at
    from summed
)

select * from final
