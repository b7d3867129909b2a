{{ config(
    materialized='table',
    pre_hook='{{ plan_hash_joins() }}',
    post_hook='{{ gather_statistics(this) }}',
) }}

{#- A rep's own conversion counts as much as the project's once so many items converted. -#}
{%- set events_of_project = 5 -%}

with

known as (
    select * from {{ ref('int_forecast_known') }}
),

working_days as (
    select * from {{ ref('int_forecast_working_days') }}
),

curves as (
    select * from {{ ref('int_forecast_curves') }}
),

reps as (
    select
        known.source_system,
        known.project_id,
        known.made_for_day,
        known.last_of_month,
        known.kpi,
        known.is_of_list,
        known.rep_id,
        sum({{ flag('known.has_event') }} * known.items) as events,
        sum({{ flag('known.is_recent') }} * known.items) as recent_items,
        ({{ events_of_project }} + sum({{ flag('known.has_event') }} * known.items))
        / ({{ events_of_project }} + sum(known.items * curves.expected_events)) as pace
    from known
    inner join curves
        on
            {{ same_forecast('known', 'curves', ['kpi', 'is_of_list']) }}
            and known.last_age = curves.age
    group by
        known.source_system,
        known.project_id,
        known.made_for_day,
        known.last_of_month,
        known.kpi,
        known.is_of_list,
        known.rep_id
),

-- One step after the other: PostgreSQL would hold each age against each.
in_flight as (
    select
        source_system,
        project_id,
        made_for_day,
        kpi,
        is_of_list,
        rep_id,
        last_age,
        age_at_month_end,
        sum(items) as items
    from known
    where is_in_flight
    group by
        source_system,
        project_id,
        made_for_day,
        kpi,
        is_of_list,
        rep_id,
        last_age,
        age_at_month_end
),

by_now as (
    select
        in_flight.*,
        curves.share_with_event,
        curves.share_left
    from in_flight
    inner join curves
        on
            {{ same_forecast('in_flight', 'curves', ['kpi', 'is_of_list']) }}
            and in_flight.last_age = curves.age
    {{ computed_once() }}
),

by_month_end as (
    select
        by_now.*,
        least(
            (curves.share_with_event - by_now.share_with_event) / nullif(by_now.share_left, 0), 1
        ) as usual_chance
    from by_now
    inner join curves
        on
            {{ same_forecast('by_now', 'curves', ['kpi', 'is_of_list']) }}
            and by_now.age_at_month_end = curves.age
    {{ computed_once() }}
),

chances as (
    select
        by_month_end.*,
        1 - power(1 - by_month_end.usual_chance, reps.pace) as chance
    from by_month_end
    inner join reps
        on {{ same_forecast('by_month_end', 'reps', ['kpi', 'is_of_list', 'rep_id']) }}
),

from_in_flight as (
    select
        source_system,
        project_id,
        made_for_day,
        kpi,
        is_of_list,
        rep_id,
        sum(items) as items,
        sum(items * chance) as expected,
        sum(items * chance * (1 - chance)) as variance
    from chances
    group by
        source_system,
        project_id,
        made_for_day,
        kpi,
        is_of_list,
        rep_id
),

days_ahead as (
    select
        reps.source_system,
        reps.project_id,
        reps.made_for_day,
        reps.kpi,
        reps.is_of_list,
        reps.rep_id,
        reps.pace,
        reps.last_of_month - working_days.day as age_at_month_end
    from reps
    inner join working_days
        on {{ same_forecast('reps', 'working_days', ['rep_id']) }}
    where working_days.is_ahead
    {{ computed_once() }}
),

-- What an item that comes on each of the days left would bring by the end of the month.
from_days_left as (
    select
        days_ahead.source_system,
        days_ahead.project_id,
        days_ahead.made_for_day,
        days_ahead.kpi,
        days_ahead.is_of_list,
        days_ahead.rep_id,
        sum(1 - power(1 - curves.share_with_event, days_ahead.pace)) as events_of_one_a_day
    from days_ahead
    inner join curves
        on
            {{ same_forecast('days_ahead', 'curves', ['kpi', 'is_of_list']) }}
            and days_ahead.age_at_month_end = curves.age
    group by
        days_ahead.source_system,
        days_ahead.project_id,
        days_ahead.made_for_day,
        days_ahead.kpi,
        days_ahead.is_of_list,
        days_ahead.rep_id
),

days_worked as (
    select
        source_system,
        project_id,
        made_for_day,
        rep_id,
        count(*) as days
    from working_days
    where not is_ahead
    group by
        source_system,
        project_id,
        made_for_day,
        rep_id
),

added_up as (
    select
        reps.source_system,
        reps.project_id,
        reps.made_for_day,
        reps.kpi,
        reps.is_of_list,
        reps.rep_id,
        reps.events,
        coalesce(from_in_flight.items, 0) as items_in_flight,
        coalesce(from_in_flight.expected, 0) as expected_of_in_flight,
        coalesce(from_in_flight.variance, 0) as variance_of_in_flight,
        coalesce(from_days_left.events_of_one_a_day, 0) as events_of_one_a_day,
        reps.recent_items / cast(days_worked.days as {{ dbt.type_float() }}) as items_a_day,
        days_worked.days as days_worked
    from reps
    left join from_in_flight
        on {{ same_forecast('reps', 'from_in_flight', ['kpi', 'is_of_list', 'rep_id']) }}
    left join from_days_left
        on {{ same_forecast('reps', 'from_days_left', ['kpi', 'is_of_list', 'rep_id']) }}
    left join days_worked
        on {{ same_forecast('reps', 'days_worked', ['rep_id']) }}
),

expected as (
    select
        added_up.*,
        coalesce(items_a_day, 0) * events_of_one_a_day as expected_of_arrivals
    from added_up
),

-- Arrivals vary by themselves, their pace is known from some days alone, and so is the rep's own
-- conversion from some events.
varying as (
    select
        expected.*,
        variance_of_in_flight
        + expected_of_arrivals
        + coalesce(expected_of_arrivals * events_of_one_a_day / days_worked, 0)
        + (expected_of_in_flight + expected_of_arrivals)
        * (expected_of_in_flight + expected_of_arrivals)
        / (events + {{ events_of_project }}) as variance
    from expected
),

final as (
    select
        source_system,
        project_id,
        made_for_day,
        kpi,
        is_of_list,
        rep_id,
        items_in_flight,
        {{ steady_number('expected_of_in_flight') }} as expected_of_in_flight,
        {{ steady_number('expected_of_arrivals') }} as expected_of_arrivals,
        {{ steady_number('variance') }} as variance
    from varying
)

select * from final
