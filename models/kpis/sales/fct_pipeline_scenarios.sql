with

items as (
    select * from {{ ref('fct_pipeline_deals') }}
),

scenarios as (
    select * from {{ ref('pipeline_scenarios') }}
    {%- if var('pipeline_scenarios', []) %}
    where scenario in (
        {%- for scenario in var('pipeline_scenarios') %}
        {{ dbt.string_literal(scenario) }}{{ ',' if not loop.last }}
        {%- endfor %}
    )
    {%- endif %}
),

-- Which factors a scenario applies; a factor that it does not apply is 1.
factors as (
    select
        items.*,
        scenarios.scenario,
        scenarios.min_win_probability,
        {{ scenario_toggle(
            'scenarios.applies_probability', true, 'items.win_probability', '1'
        ) }} as probability_factor,
        {{ scenario_toggle(
            'scenarios.applies_stage_weight', true, 'items.stage_weight', '1'
        ) }} as stage_factor,
        scenarios.applies_probability or scenarios.applies_stage_weight as applies_weighting
    from items
    cross join scenarios
),

final as (
    select
        {{ dbt.concat(['pipeline_deal_key', "'|'", 'scenario']) }} as pipeline_scenario_key,
        pipeline_deal_key,
        scenario,
        deal_type,
        source_system,
        project_id,
        deal_id,
        facility_id,
        rep_id,
        stage,
        currency,
        excluded_reason,
        record_origin,
        amount,
        win_probability,
        stage_weight,
        expected_amount,
        cast(
            case
                when win_probability < min_win_probability then 0
                else {{ weighted_pipeline_scenario(
                    'amount', 'probability_factor', 'stage_factor', 'applies_weighting'
                ) }}
            end as {{ type_money() }}
        ) as weighted_amount,
        month,
        created_at,
        {{ built_at() }} as updated_at
    from factors
)

select * from final
