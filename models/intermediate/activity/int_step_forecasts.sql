{{ config(materialized='table') }}

{#- A rep's own conversion counts as much as the project's once as many items of theirs converted. -#}
{%- set events_of_project = 5 -%}

with

known as (
    select * from {{ ref('int_forecast_known') }}
),

working_days as (
    select * from {{ ref('int_forecast_working_days') }}
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
        last_age,
        sum(items) as items,
        sum({{ flag('has_event') }} * items) as events
    from known
    group by
        source_system,
        project_id,
        made_for_day,
        kpi,
        last_age
),

forecasts as (
    select distinct
        source_system,
        project_id,
        made_for_day,
        kpi
    from leaving
),

-- Of those that had come to an age, how many had the step at it; one more than there were, so that
-- no age is certain.
hazards as (
    select
        forecasts.source_system,
        forecasts.project_id,
        forecasts.made_for_day,
        forecasts.kpi,
        ages.n as age,
        coalesce(leaving.events, 0) / cast(
            1 + sum(coalesce(leaving.items, 0)) over (
                partition by
                    forecasts.source_system,
                    forecasts.project_id,
                    forecasts.made_for_day,
                    forecasts.kpi
                order by ages.n desc
                rows between unbounded preceding and current row
            ) as {{ dbt.type_float() }}
        ) as hazard
    from forecasts
    cross join ages
    left join leaving
        on
            forecasts.source_system = leaving.source_system
            and forecasts.project_id = leaving.project_id
            and forecasts.made_for_day = leaving.made_for_day
            and forecasts.kpi = leaving.kpi
            and ages.n = leaving.last_age
),

curves as (
    select
        source_system,
        project_id,
        made_for_day,
        kpi,
        age,
        sum(hazard) over up_to_age as expected_events,
        sum(ln(1 - hazard)) over up_to_age as log_share_left
    from hazards
    window up_to_age as (
        partition by source_system, project_id, made_for_day, kpi
        order by age
        rows between unbounded preceding and current row
    )
),

reps as (
    select
        known.source_system,
        known.project_id,
        known.made_for_day,
        known.last_of_month,
        known.kpi,
        known.rep_id,
        sum({{ flag('known.has_event') }} * known.items) as events,
        sum({{ flag('known.is_recent') }} * known.items) as recent_items,
        ({{ events_of_project }} + sum({{ flag('known.has_event') }} * known.items))
        / ({{ events_of_project }} + sum(known.items * curves.expected_events)) as pace
    from known
    inner join curves
        on
            known.source_system = curves.source_system
            and known.project_id = curves.project_id
            and known.made_for_day = curves.made_for_day
            and known.kpi = curves.kpi
            and known.last_age = curves.age
    group by
        known.source_system,
        known.project_id,
        known.made_for_day,
        known.last_of_month,
        known.kpi,
        known.rep_id
),

in_flight as (
    select
        known.source_system,
        known.project_id,
        known.made_for_day,
        known.kpi,
        known.rep_id,
        known.items,
        1 - exp(reps.pace * (by_month_end.log_share_left - by_now.log_share_left)) as chance
    from known
    inner join reps
        on
            known.source_system = reps.source_system
            and known.project_id = reps.project_id
            and known.made_for_day = reps.made_for_day
            and known.kpi = reps.kpi
            and known.rep_id = reps.rep_id
    inner join curves as by_now
        on
            known.source_system = by_now.source_system
            and known.project_id = by_now.project_id
            and known.made_for_day = by_now.made_for_day
            and known.kpi = by_now.kpi
            and known.last_age = by_now.age
    inner join curves as by_month_end
        on
            known.source_system = by_month_end.source_system
            and known.project_id = by_month_end.project_id
            and known.made_for_day = by_month_end.made_for_day
            and known.kpi = by_month_end.kpi
            and known.last_of_month - known.entry_day = by_month_end.age
    where known.is_in_flight
),

from_in_flight as (
    select
        source_system,
        project_id,
        made_for_day,
        kpi,
        rep_id,
        sum(items) as items,
        sum(items * chance) as expected,
        sum(items * chance * (1 - chance)) as variance
    from in_flight
    group by
        source_system,
        project_id,
        made_for_day,
        kpi,
        rep_id
),

-- What an item that comes on each of the days left would bring by the end of the month.
from_days_left as (
    select
        reps.source_system,
        reps.project_id,
        reps.made_for_day,
        reps.kpi,
        reps.rep_id,
        sum(1 - exp(reps.pace * curves.log_share_left)) as events_of_one_a_day
    from reps
    inner join working_days
        on
            reps.source_system = working_days.source_system
            and reps.project_id = working_days.project_id
            and reps.made_for_day = working_days.made_for_day
            and reps.rep_id = working_days.rep_id
            and working_days.is_ahead
    inner join curves
        on
            reps.source_system = curves.source_system
            and reps.project_id = curves.project_id
            and reps.made_for_day = curves.made_for_day
            and reps.kpi = curves.kpi
            and reps.last_of_month - working_days.day = curves.age
    group by
        reps.source_system,
        reps.project_id,
        reps.made_for_day,
        reps.kpi,
        reps.rep_id
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
        on
            reps.source_system = from_in_flight.source_system
            and reps.project_id = from_in_flight.project_id
            and reps.made_for_day = from_in_flight.made_for_day
            and reps.kpi = from_in_flight.kpi
            and reps.rep_id = from_in_flight.rep_id
    left join from_days_left
        on
            reps.source_system = from_days_left.source_system
            and reps.project_id = from_days_left.project_id
            and reps.made_for_day = from_days_left.made_for_day
            and reps.kpi = from_days_left.kpi
            and reps.rep_id = from_days_left.rep_id
    left join days_worked
        on
            reps.source_system = days_worked.source_system
            and reps.project_id = days_worked.project_id
            and reps.made_for_day = days_worked.made_for_day
            and reps.rep_id = days_worked.rep_id
),

expected as (
    select
        added_up.*,
        coalesce(items_a_day, 0) * events_of_one_a_day as expected_of_arrivals
    from added_up
),

-- Arrivals vary by themselves, their pace is known from some days alone, and so is the rep's own
-- conversion from some events.
final as (
    select
        source_system,
        project_id,
        made_for_day,
        kpi,
        rep_id,
        items_in_flight,
        expected_of_in_flight,
        expected_of_arrivals,
        variance_of_in_flight
        + expected_of_arrivals
        + coalesce(expected_of_arrivals * events_of_one_a_day / days_worked, 0)
        + (expected_of_in_flight + expected_of_arrivals)
        * (expected_of_in_flight + expected_of_arrivals)
        / (events + {{ events_of_project }}) as variance
    from expected
)

select * from final
