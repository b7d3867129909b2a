with

contributions as (
    select * from {{ ref('fct_pipeline_scenarios') }}
    where excluded_reason is null
),

final as (
    select
        facility_id,
        rep_id,
        stage,
        month,
        scenario,
        currency,
        count(*) as deal_count,
        sum(amount) as total_pipeline_value,
        sum(weighted_amount) as weighted_pipeline_value,
        round({{ weighted_forecast(
            'win_probability', 'amount', var('weigh_probability_by_amount', true)
        ) }}, 4) as avg_win_probability,
        {{ ratio('sum(weighted_amount)', 'sum(amount)', 4) }} as weight_factor,
        {{ built_at() }} as updated_at
    from contributions
    group by
        facility_id,
        rep_id,
        stage,
        month,
        scenario,
        currency
)

select * from final
