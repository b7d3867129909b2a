{{ config(
    materialized=flow_materialized(),
    incremental_strategy='by_calendar_scope',
    on_schema_change='append_new_columns',
    indexes=[{'columns': ['calendar_scope_id', 'position_day']}],
    post_hook=['{{ gather_statistics(this) }}', '{{ remember_flow_position() }}'],
) }}

with

scopes as (
    {{ calendar_scopes_to_build() }}
),

calendar as (
    select * from {{ ref('int_working_calendar') }}
    where
        seconds > 0
        and calendar_scope_id in (select scopes.calendar_scope_id from scopes)
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
