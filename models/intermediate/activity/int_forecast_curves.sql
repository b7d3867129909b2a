{{ config(
    materialized='table',
    pre_hook='{{ plan_hash_joins() }}',
    post_hook='{{ gather_statistics(this) }}',
) }}

with

known as (
    select * from {{ ref('int_forecast_known') }}
),

ages as (
    {{ whole_numbers(forecast_learned_days() + 31) }}
),

leaving as (
    select
        source_system,
        project_id,
        made_for_day,
        kpi,
        is_of_list,
        last_age,
        sum(items) as items,
        sum({{ flag('has_event') }} * items) as events,
        sum({{ flag('not is_in_flight') }} * items) as ended
    from known
    group by
        source_system,
        project_id,
        made_for_day,
        kpi,
        is_of_list,
        last_age
),

forecasts as (
    select distinct
        source_system,
        project_id,
        made_for_day,
        kpi,
        is_of_list
    from leaving
),

-- Of the items that had come to an age; one more than there were, so that no age ends them all.
at_risk as (
    select
        forecasts.source_system,
        forecasts.project_id,
        forecasts.made_for_day,
        forecasts.kpi,
        forecasts.is_of_list,
        ages.n as age,
        coalesce(leaving.events, 0) as events,
        coalesce(leaving.ended, 0) as ended,
        cast(
            1 + sum(coalesce(leaving.items, 0)) over (
                partition by
                    forecasts.source_system,
                    forecasts.project_id,
                    forecasts.made_for_day,
                    forecasts.kpi,
                    forecasts.is_of_list
                order by ages.n desc
                rows between unbounded preceding and current row
            ) as {{ dbt.type_float() }}
        ) as items
    from forecasts
    cross join ages
    left join leaving
        on
            {{ same_forecast('forecasts', 'leaving', ['kpi', 'is_of_list']) }}
            and ages.n = leaving.last_age
),

-- An item ends with its step, or closed without it: both leave less that may come to the step.
survival as (
    select
        source_system,
        project_id,
        made_for_day,
        kpi,
        is_of_list,
        age,
        events / items as hazard,
        ln(1 - ended / items) as log_share_staying,
        sum(ln(1 - ended / items)) over (
            partition by
                source_system,
                project_id,
                made_for_day,
                kpi,
                is_of_list
            order by age
            rows between unbounded preceding and current row
        ) as log_share_left
    from at_risk
),

final as (
    select
        source_system,
        project_id,
        made_for_day,
        kpi,
        is_of_list,
        age,
        {{ steady_number('sum(hazard) over up_to_age') }} as expected_events,
        {{ steady_number(
            'sum(hazard * exp(log_share_left - log_share_staying)) over up_to_age'
        ) }} as share_with_event,
        {{ steady_number('exp(log_share_left)') }} as share_left
    from survival
    window up_to_age as (
        partition by
            source_system,
            project_id,
            made_for_day,
            kpi,
            is_of_list
        order by age
        rows between unbounded preceding and current row
    )
)

select * from final
