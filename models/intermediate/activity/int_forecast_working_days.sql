{{ config(
    materialized='table',
    pre_hook='{{ plan_hash_joins() }}',
    post_hook='{{ gather_statistics(this) }}',
) }}

with

work_days as (
    select
        source_system,
        project_id,
        {{ day_of_date('date_day') }} as day
    from {{ ref('int_work_days') }}
    where is_working_day = 1
),

-- The last thing that an unlisted rep did is known by what came later alone.
roster as (
    select
        source_system,
        project_id,
        rep_id,
        {{ day_of_date('active_from') }} as first_day,
        case when is_listed then {{ day_of_date('active_to') }} end as last_day
    from {{ ref('int_roster') }}
),

made_for as (
    select * from {{ ref('int_forecast_days') }}
    where {{ forecast_is_to_build() }}
),

around as (
    select
        made_for.source_system,
        made_for.project_id,
        made_for.made_for_day,
        work_days.day,
        work_days.day >= made_for.made_for_day as is_ahead
    from made_for
    inner join work_days
        on
            made_for.source_system = work_days.source_system
            and made_for.project_id = work_days.project_id
            and made_for.made_for_day - {{ forecast_recent_days() }} <= work_days.day
            and made_for.last_of_month >= work_days.day
),

-- Whoever is there on the day is taken to be there for the rest of the month.
final as (
    select distinct
        around.source_system,
        around.project_id,
        around.made_for_day,
        roster.rep_id,
        around.day,
        around.is_ahead
    from around
    inner join roster
        on
            around.source_system = roster.source_system
            and around.project_id = roster.project_id
            and case when around.is_ahead then around.made_for_day else around.day end
            between roster.first_day and coalesce(roster.last_day, around.made_for_day)
)

select * from final
