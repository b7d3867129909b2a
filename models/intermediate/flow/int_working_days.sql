{{ config(
    materialized='table',
    indexes=[{'columns': ['calendar_scope_id', 'position_day']}],
    post_hook='{{ gather_statistics(this) }}',
) }}

with

calendar as (
    select * from {{ ref('int_working_calendar') }}
    where seconds > 0
),

begun as (
    select
        calendar.*,
        {{ day_of_second('seconds_before') }} as first_day,
        {{ day_of_second('(seconds_before + seconds - 1)') }} as last_day
    from calendar
),

final as (
    select
        begun.*,
        first_day as position_day
    from begun
    union all
    select
        begun.*,
        last_day as position_day
    from begun
    where last_day != first_day
)

select * from final
