{{ config(
    materialized='table',
    pre_hook='{{ plan_hash_joins() }}',
    post_hook='{{ gather_statistics(this) }}',
) }}

{#- A rep's own sales count as much as the project's sales per list once there are as many. -#}
{%- set sales_of_project = 5 -%}

with

made_for as (
    select * from {{ ref('int_forecast_days') }}
    where {{ forecast_is_to_build() }}
),

working_days as (
    select * from {{ ref('int_forecast_working_days') }}
),

sent_lists as (
    select
        source_system,
        project_id,
        rep_id,
        event_day as list_out_day,
        sum(items) as lists
    from {{ ref('int_forecast_items') }}
    where kpi = 'lists_out' and event_day is not null
    group by
        source_system,
        project_id,
        rep_id,
        event_day
),

sales as (
    select * from {{ ref('int_forecast_sales') }}
),

ages as (
    {{ whole_numbers(forecast_learned_days() + 31) }}
),

known_lists as (
    select
        made_for.source_system,
        made_for.project_id,
        made_for.made_for_day,
        sent_lists.rep_id,
        sent_lists.list_out_day,
        made_for.made_for_day - 1 - sent_lists.list_out_day as age,
        made_for.last_of_month - sent_lists.list_out_day as age_at_month_end,
        sent_lists.lists
    from made_for
    inner join sent_lists
        on
            made_for.source_system = sent_lists.source_system
            and made_for.project_id = sent_lists.project_id
            and made_for.made_for_day > sent_lists.list_out_day
            and made_for.made_for_day - {{ forecast_learned_days() }} <= sent_lists.list_out_day
),

known_sales as (
    select
        made_for.source_system,
        made_for.project_id,
        made_for.made_for_day,
        sales.rep_id,
        sales.currency,
        sales.item_key,
        sales.sold_day,
        sales.sold_day - sales.list_out_day as age,
        sales.sales,
        sales.revenue,
        sales.squared_revenue
    from made_for
    inner join sales
        on
            made_for.source_system = sales.source_system
            and made_for.project_id = sales.project_id
            and made_for.made_for_day > sales.sold_day
            and made_for.made_for_day - {{ forecast_learned_days() }}
            <= coalesce(sales.list_out_day, sales.sold_day)
),

currencies as (
    select distinct
        source_system,
        project_id,
        made_for_day,
        currency
    from known_sales
),

lists_of_ages as (
    select
        source_system,
        project_id,
        made_for_day,
        age,
        sum(lists) as lists
    from known_lists
    group by
        source_system,
        project_id,
        made_for_day,
        age
),

revenue_of_lists as (
    select
        source_system,
        project_id,
        made_for_day,
        currency,
        item_key,
        sum(revenue) as revenue,
        sum(squared_revenue) as squared_revenue
    from known_sales
    where age is not null
    group by
        source_system,
        project_id,
        made_for_day,
        currency,
        item_key
),

-- Sales of one list come together: its revenue varies more than that of as many lone sales.
clusters as (
    select
        source_system,
        project_id,
        made_for_day,
        currency,
        sum(revenue * revenue) / nullif(sum(squared_revenue), 0) as clustering
    from revenue_of_lists
    group by
        source_system,
        project_id,
        made_for_day,
        currency
),

sales_of_ages as (
    select
        source_system,
        project_id,
        made_for_day,
        currency,
        age,
        sum(sales) as sales,
        sum(revenue) as revenue,
        sum(squared_revenue) as squared_revenue
    from known_sales
    where age is not null
    group by
        source_system,
        project_id,
        made_for_day,
        currency,
        age
),

-- What lists brought at an age, and how many had come to it; one more, so that none is certain.
brought as (
    select
        currencies.source_system,
        currencies.project_id,
        currencies.made_for_day,
        currencies.currency,
        ages.n as age,
        coalesce(sales_of_ages.sales, 0) as sales,
        coalesce(sales_of_ages.revenue, 0) as revenue,
        coalesce(sales_of_ages.squared_revenue * clusters.clustering, 0) as squared_revenue,
        cast(
            1 + sum(coalesce(lists_of_ages.lists, 0)) over (
                partition by
                    currencies.source_system,
                    currencies.project_id,
                    currencies.made_for_day,
                    currencies.currency
                order by ages.n desc
                rows between unbounded preceding and current row
            ) as {{ dbt.type_float() }}
        ) as lists
    from currencies
    cross join ages
    left join lists_of_ages
        on
            {{ same_forecast('currencies', 'lists_of_ages') }}
            and ages.n = lists_of_ages.age
    left join sales_of_ages
        on
            {{ same_forecast('currencies', 'sales_of_ages', ['currency']) }}
            and ages.n = sales_of_ages.age
    left join clusters
        on {{ same_forecast('currencies', 'clusters', ['currency']) }}
),

-- What one list brings up to an age.
curves as (
    select
        {%- for measure in ['sales', 'revenue', 'squared_revenue'] %}
        sum({{ measure }} / lists) over up_to_age as {{ measure }},
        {%- endfor %}
        source_system,
        project_id,
        made_for_day,
        currency,
        age
    from brought
    window up_to_age as (
        partition by
            source_system,
            project_id,
            made_for_day,
            currency
        order by age
        rows between unbounded preceding and current row
    )
),

sales_of_lists as (
    select
        source_system,
        project_id,
        made_for_day,
        rep_id,
        sum(sales) as sales
    from known_sales
    where age is not null
    group by
        source_system,
        project_id,
        made_for_day,
        rep_id
),

lists_of_reps as (
    select
        source_system,
        project_id,
        made_for_day,
        rep_id,
        sum({{ flag('age < ' ~ forecast_recent_days()) }} * lists) as recent_lists
    from known_lists
    group by
        source_system,
        project_id,
        made_for_day,
        rep_id
),

expected_sales as (
    select
        known_lists.source_system,
        known_lists.project_id,
        known_lists.made_for_day,
        known_lists.rep_id,
        sum(known_lists.lists * curves.sales) as sales
    from known_lists
    inner join curves
        on {{ same_forecast('known_lists', 'curves', ['age']) }}
    group by
        known_lists.source_system,
        known_lists.project_id,
        known_lists.made_for_day,
        known_lists.rep_id
),

paces as (
    select
        lists_of_reps.source_system,
        lists_of_reps.project_id,
        lists_of_reps.made_for_day,
        lists_of_reps.rep_id,
        lists_of_reps.recent_lists,
        coalesce(sales_of_lists.sales, 0) as sales,
        ({{ sales_of_project }} + coalesce(sales_of_lists.sales, 0))
        / ({{ sales_of_project }} + coalesce(expected_sales.sales, 0)) as pace
    from lists_of_reps
    left join sales_of_lists
        on {{ same_forecast('lists_of_reps', 'sales_of_lists', ['rep_id']) }}
    left join expected_sales
        on {{ same_forecast('lists_of_reps', 'expected_sales', ['rep_id']) }}
),

-- One step after the other: PostgreSQL would hold each age against each.
by_now as (
    select
        known_lists.*,
        curves.currency,
        curves.revenue,
        curves.squared_revenue
    from known_lists
    inner join curves
        on {{ same_forecast('known_lists', 'curves', ['age']) }}
    {{ computed_once() }}
),

from_sent_lists as (
    select
        by_now.source_system,
        by_now.project_id,
        by_now.made_for_day,
        by_now.rep_id,
        by_now.currency,
        sum(by_now.lists * (curves.revenue - by_now.revenue)) as revenue,
        sum(by_now.lists * (curves.squared_revenue - by_now.squared_revenue)) as squared_revenue
    from by_now
    inner join curves
        on
            {{ same_forecast('by_now', 'curves', ['currency']) }}
            and by_now.age_at_month_end = curves.age
    group by
        by_now.source_system,
        by_now.project_id,
        by_now.made_for_day,
        by_now.rep_id,
        by_now.currency
),

days_worked as (
    select
        source_system,
        project_id,
        made_for_day,
        rep_id,
        cast(sum({{ flag('not is_ahead') }}) as {{ dbt.type_float() }}) as days,
        sum({{ flag('is_ahead') }}) as days_ahead
    from working_days
    group by
        source_system,
        project_id,
        made_for_day,
        rep_id
),

days_ahead as (
    select
        working_days.source_system,
        working_days.project_id,
        working_days.made_for_day,
        working_days.rep_id,
        made_for.last_of_month - working_days.day as age_at_month_end
    from working_days
    inner join made_for
        on {{ same_forecast('working_days', 'made_for') }}
    where working_days.is_ahead
    {{ computed_once() }}
),

-- What one list more on each of the days left would bring.
from_days_ahead as (
    select
        days_ahead.source_system,
        days_ahead.project_id,
        days_ahead.made_for_day,
        days_ahead.rep_id,
        curves.currency,
        sum(curves.revenue) as revenue,
        sum(curves.squared_revenue) as squared_revenue
    from days_ahead
    inner join curves
        on
            {{ same_forecast('days_ahead', 'curves') }}
            and days_ahead.age_at_month_end = curves.age
    group by
        days_ahead.source_system,
        days_ahead.project_id,
        days_ahead.made_for_day,
        days_ahead.rep_id,
        curves.currency
),

-- Sales that no list stands behind come as they came lately.
other_sales as (
    select
        source_system,
        project_id,
        made_for_day,
        rep_id,
        currency,
        sum(sales) as sales,
        sum(revenue) as revenue,
        sum(squared_revenue) as squared_revenue
    from known_sales
    where age is null and sold_day >= made_for_day - {{ forecast_recent_days() }}
    group by
        source_system,
        project_id,
        made_for_day,
        rep_id,
        currency
),

reps as (
    select
        source_system,
        project_id,
        made_for_day,
        rep_id,
        currency
    from from_sent_lists
    union distinct
    select
        source_system,
        project_id,
        made_for_day,
        rep_id,
        currency
    from from_days_ahead
    union distinct
    select
        source_system,
        project_id,
        made_for_day,
        rep_id,
        currency
    from other_sales
),

parts as (
    select
        reps.source_system,
        reps.project_id,
        reps.made_for_day,
        reps.rep_id,
        reps.currency,
        coalesce(paces.sales, 0) + coalesce(other_sales.sales, 0) as sales,
        coalesce(paces.pace * from_sent_lists.revenue, 0) as expected_of_lists,
        coalesce(paces.pace * from_sent_lists.squared_revenue, 0) as variance_of_lists,
        coalesce(paces.recent_lists / nullif(days_worked.days, 0), 0) as lists_a_day,
        coalesce(paces.pace * from_days_ahead.revenue, 0) as revenue_of_one_a_day,
        coalesce(paces.pace * from_days_ahead.squared_revenue, 0) as squares_of_one_a_day,
        coalesce(
            other_sales.revenue / nullif(days_worked.days, 0) * days_worked.days_ahead, 0
        ) as expected_of_others,
        coalesce(
            other_sales.squared_revenue / nullif(days_worked.days, 0) * days_worked.days_ahead, 0
        ) as variance_of_others,
        days_worked.days
    from reps
    left join paces
        on {{ same_forecast('reps', 'paces', ['rep_id']) }}
    left join from_sent_lists
        on {{ same_forecast('reps', 'from_sent_lists', ['rep_id', 'currency']) }}
    left join from_days_ahead
        on {{ same_forecast('reps', 'from_days_ahead', ['rep_id', 'currency']) }}
    left join other_sales
        on {{ same_forecast('reps', 'other_sales', ['rep_id', 'currency']) }}
    left join days_worked
        on {{ same_forecast('reps', 'days_worked', ['rep_id']) }}
),

added_up as (
    select
        source_system,
        project_id,
        made_for_day,
        rep_id,
        currency,
        expected_of_lists,
        lists_a_day * revenue_of_one_a_day + expected_of_others as expected_of_arrivals,
        variance_of_lists
        + lists_a_day * squares_of_one_a_day
        + coalesce(lists_a_day * revenue_of_one_a_day * revenue_of_one_a_day / nullif(days, 0), 0)
        + variance_of_others as variance,
        sales
    from parts
),

final as (
    select
        source_system,
        project_id,
        made_for_day,
        rep_id,
        currency,
        {{ steady_number('expected_of_lists') }} as expected_of_in_flight,
        {{ steady_number('expected_of_arrivals') }} as expected_of_arrivals,
        {{ steady_number(
            'variance + (expected_of_lists + expected_of_arrivals)'
            ~ ' * (expected_of_lists + expected_of_arrivals) / (sales + ' ~ sales_of_project ~ ')'
        ) }} as variance
    from added_up
)

select * from final
