{#- int_forecast_days says which forecasts have to be made, in a full refresh all of them; of others
    the models in between hold nothing. -#}
{{ config(
    materialized=flow_materialized(),
    incremental_strategy='by_day',
    on_schema_change='append_new_columns',
    full_refresh=false,
    pre_hook=['{{ plan_hash_joins() }}', '{{ forget_built_periods() }}'],
    post_hook=['{{ gather_statistics(this) }}', '{{ remember_periods() }}'],
) }}

{#- Of the standard normal distribution: 10 % lie below the one, 10 % above the other. -#}
{%- set deviations = 1.2815515655 -%}
{#- How much months differ for all at once, as a share: season, prices, what nobody saw coming. -#}
{%- set month_spread = 0.1 -%}

with

made_for as (
    select * from {{ ref('int_forecast_days') }}
    where {{ forecast_is_to_build() }}
),

roster as (
    select
        source_system,
        project_id,
        rep_id,
        team_id,
        {{ day_of_date('active_from') }} as first_day
    from {{ ref('int_roster') }}
),

forecasts as (
    select
        source_system,
        project_id,
        made_for_day,
        rep_id,
        kpi,
        'XXX' as currency,
        expected_of_in_flight,
        expected_of_arrivals,
        variance
    from {{ ref('int_step_forecasts') }}
    union all
    select
        source_system,
        project_id,
        made_for_day,
        rep_id,
        'revenue' as kpi,
        currency,
        expected_of_in_flight,
        expected_of_arrivals,
        variance
    from {{ ref('int_revenue_forecasts') }}
),

came as (
    select
        source_system,
        project_id,
        rep_id,
        kpi,
        'XXX' as currency,
        event_day as day,
        cast(items as {{ type_number() }}) as value
    from {{ ref('int_forecast_items') }}
    where event_day is not null
    union all
    select
        source_system,
        project_id,
        rep_id,
        'revenue' as kpi,
        currency,
        sold_day as day,
        revenue as value
    from {{ ref('int_forecast_sales') }}
),

came_in_months as (
    select
        made_for.source_system,
        made_for.project_id,
        made_for.made_for_day,
        came.rep_id,
        came.kpi,
        came.currency,
        sum(case when came.day < made_for.made_for_day then came.value else 0 end) as before_day,
        sum(case when came.day >= made_for.made_for_day then came.value else 0 end) as from_day_on
    from made_for
    inner join came
        on
            made_for.source_system = came.source_system
            and made_for.project_id = came.project_id
            and made_for.first_of_month <= came.day
            and made_for.last_of_month >= came.day
    group by
        made_for.source_system,
        made_for.project_id,
        made_for.made_for_day,
        came.rep_id,
        came.kpi,
        came.currency
),

summands as (
    select
        source_system,
        project_id,
        made_for_day,
        rep_id,
        kpi,
        currency,
        expected_of_in_flight,
        expected_of_arrivals,
        variance,
        0 as before_day,
        0 as from_day_on
    from forecasts
    union all
    select
        source_system,
        project_id,
        made_for_day,
        rep_id,
        kpi,
        currency,
        0 as expected_of_in_flight,
        0 as expected_of_arrivals,
        0 as variance,
        before_day,
        from_day_on
    from came_in_months
),

-- The team that a rep was in on the day, or was in last before it.
teams as (
    select
        made_for.source_system,
        made_for.project_id,
        made_for.made_for_day,
        roster.rep_id,
        roster.team_id,
        row_number() over (
            partition by
                made_for.source_system,
                made_for.project_id,
                made_for.made_for_day,
                roster.rep_id
            order by roster.first_day desc
        ) as place_from_end
    from made_for
    inner join roster
        on
            made_for.source_system = roster.source_system
            and made_for.project_id = roster.project_id
            and made_for.made_for_day >= roster.first_day
),

of_reps as (
    select
        summands.*,
        coalesce(teams.team_id, 'unassigned') as team_id
    from summands
    left join teams
        on
            {{ same_forecast('summands', 'teams', ['rep_id']) }}
            and teams.place_from_end = 1
),

summed as (
    select
        source_system,
        project_id,
        {{ subject_columns() | indent(8) }},
        made_for_day,
        kpi,
        currency,
        sum(expected_of_in_flight) as expected_of_in_flight,
        sum(expected_of_arrivals) as expected_of_arrivals,
        sum(expected_of_in_flight + expected_of_arrivals) as expected,
        sum(variance)
        + {{ month_spread }} * sum(expected_of_in_flight + expected_of_arrivals)
        * {{ month_spread }} * sum(expected_of_in_flight + expected_of_arrivals) as variance,
        sum(before_day) as before_day,
        sum(from_day_on) as from_day_on
    from of_reps
    {{ group_by_subject(['made_for_day', 'kpi', 'currency']) | indent(4) }}
),

bounded as (
    select
        summed.*,
        {{ forecast_quantile('expected', 'variance', '-' ~ deviations) }} as low,
        {{ forecast_quantile('expected', 'variance', deviations) }} as high
    from summed
),

final as (
    select
        {%- for amount in [
            'expected_of_in_flight', 'expected_of_arrivals', 'expected', 'before_day', 'from_day_on',
        ] %}
        round(cast(bounded.{{ amount }} as {{ type_number() }}), 4) as {{ amount }},
        {%- endfor %}
        {%- for bound in ['low', 'high'] %}
        case
            when bounded.kpi = 'revenue'
                then round(cast(bounded.{{ bound }} as {{ type_number() }}), 2)
            else round(cast(bounded.{{ bound }} as {{ type_number() }}), 0)
        end as {{ bound }},
        {%- endfor %}
        {{ date_of_day('bounded.made_for_day') }} as made_for_date,
        bounded.source_system,
        bounded.project_id,
        bounded.subject_type,
        bounded.subject_id,
        bounded.kpi,
        bounded.currency
    from bounded
    inner join made_for
        on {{ same_forecast('bounded', 'made_for') }}
)

select * from final
