with

forecasts as (
    select * from {{ ref('int_sales_forecasts') }}
    where is_current
),

backtests as (
    select
        source_system,
        project_id,
        subject_type,
        subject_id,
        kpi,
        currency,
        count(*) as backtests,
        sum(is_inside) as backtests_inside
    from {{ ref('sales_forecast_backtest') }}
    group by
        source_system,
        project_id,
        subject_type,
        subject_id,
        kpi,
        currency
),

-- What has come today is known, whatever was expected of the day.
final as (
    select
        forecasts.source_system,
        forecasts.project_id,
        forecasts.subject_type,
        forecasts.subject_id,
        forecasts.subject_name,
        forecasts.kpi,
        forecasts.currency,
        {%- set so_far = '(forecasts.before_day + forecasts.from_day_on)' %}
        cast({{ so_far }} as {{ type_money() }}) as so_far,
        {%- for total in ['expected', 'low', 'high'] %}
        cast(
            greatest(forecasts.before_day + forecasts.{{ total }}, {{ so_far }})
            as {{ type_money() }}
        ) as {{ total }},
        {%- endfor %}
        cast(forecasts.expected_of_in_flight as {{ type_money() }}) as expected_of_in_flight,
        cast(forecasts.expected_of_arrivals as {{ type_money() }}) as expected_of_arrivals,
        coalesce(backtests.backtests, 0) as backtests,
        coalesce(backtests.backtests_inside, 0) as backtests_inside,
        {{ pct('backtests.backtests_inside', 'backtests.backtests') }} as inside_pct,
        forecasts.month,
        forecasts.made_for_date,
        {{ built_at() }} as updated_at
    from forecasts
    left join backtests
        on
            forecasts.source_system = backtests.source_system
            and forecasts.project_id = backtests.project_id
            and forecasts.subject_type = backtests.subject_type
            and forecasts.subject_id = backtests.subject_id
            and forecasts.kpi = backtests.kpi
            and forecasts.currency = backtests.currency
)

select * from final
