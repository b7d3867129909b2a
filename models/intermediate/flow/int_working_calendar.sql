{{ config(
    materialized=flow_materialized(),
    incremental_strategy='by_calendar_scope',
    on_schema_change='append_new_columns',
    post_hook='{{ remember_flow_position() }}',
    indexes=[{'columns': ['calendar_scope_id', 'utc_day'], 'unique': true}],
) }}

{#- From 2000 to 2100: what lies outside is implausible, and no duration is measured from it. -#}
{%- set first_day, last_day = 10957, 47481 -%}

with

calendars as (
    select * from {{ ref('base_settings__calendars') }}
),

scopes as (
    {{ calendar_scopes_to_build() }}
),

windows as (
    select * from {{ ref('base_settings__calendar_windows') }}
),

exceptions as (
    select * from {{ ref('base_settings__day_exceptions') }}
),

weekdays as (
    select n + 1 as weekday from ({{ whole_numbers(6) }}) as numbers
),

hours_of_weekdays as (
    select
        calendar_id,
        weekday,
        opens_second,
        closes_second
    from windows
    union all
    select
        calendars.calendar_id,
        weekdays.weekday,
        0 as opens_second,
        86400 as closes_second
    from calendars
    cross join weekdays
    where calendars.is_always_open
),

days as (
    select {{ first_day }} + n as day
    from ({{ whole_numbers(last_day - first_day) }}) as numbers
),

zones as (
    select distinct timezone from scopes
),

offsets as (
    select
        zones.timezone,
        days.day,
        {{ utc_offset('(cast(days.day as bigint) * 86400)', 'zones.timezone') }} as at_start,
        {{ utc_offset('(cast(days.day as bigint) * 86400 + 86399)', 'zones.timezone') }} as at_end
    from zones
    cross join days
),

days_of_change as (
    select
        timezone,
        day,
        at_start,
        cast(day as bigint) * 86400 as first_second
    from offsets
    where at_start != at_end
),

hours as (
    select n * 3600 as second from ({{ whole_numbers(23) }}) as numbers
),

hours_of_change as (
    select
        days_of_change.timezone,
        days_of_change.day,
        days_of_change.at_start,
        days_of_change.first_second,
        min(hours.second) as second
    from days_of_change
    cross join hours
    where
        days_of_change.at_start != {{ utc_offset(
            '(days_of_change.first_second + hours.second + 3599)', 'days_of_change.timezone'
        ) }}
    group by
        days_of_change.timezone,
        days_of_change.day,
        days_of_change.at_start,
        days_of_change.first_second
),

minutes as (
    select n * 60 as second from ({{ whole_numbers(59) }}) as numbers
),

-- Newfoundland, among others, has changed its clocks at one minute past midnight.
changes as (
    select
        hours_of_change.timezone,
        hours_of_change.day,
        min(hours_of_change.second + minutes.second) as second
    from hours_of_change
    cross join minutes
    where
        hours_of_change.at_start != {{ utc_offset(
            '(hours_of_change.first_second + hours_of_change.second + minutes.second)',
            'hours_of_change.timezone'
        ) }}
    group by hours_of_change.timezone, hours_of_change.day
),

-- Stretches of a UTC day in which the clock on the wall is a fixed time ahead.
stretches as (
    select
        offsets.timezone,
        offsets.day,
        0 as from_second,
        coalesce(changes.second, 86400) as to_second,
        offsets.at_start as seconds_ahead
    from offsets
    left join changes
        on
            offsets.timezone = changes.timezone
            and offsets.day = changes.day
    union all
    select
        offsets.timezone,
        offsets.day,
        changes.second as from_second,
        86400 as to_second,
        offsets.at_end as seconds_ahead
    from offsets
    inner join changes
        on
            offsets.timezone = changes.timezone
            and offsets.day = changes.day
),

-- Two days more on either end: zones are up to 14 hours apart, and nights are worked.
days_and_more as (
    select day from days
    union all
    select {{ first_day }} - 1 as day
    union all
    select {{ first_day }} - 2 as day
    union all
    select {{ last_day }} + 1 as day
),

-- What is worked on a local day: by the group's own calendar where one is in force, else by the
-- project's; where neither is, every second counts, as it does without any calendar.
local_days as (
    select
        scopes.calendar_scope_id,
        scopes.timezone,
        days.day,
        calendars.calendar_id,
        case
            when exceptions.day is null then {{ weekday_of_day('days.day') }}
            else exceptions.as_weekday
        end as weekday,
        row_number() over (
            partition by scopes.calendar_scope_id, days.day
            order by case when calendars.stage_group_id is null then 2 else 1 end
        ) as place
    from scopes
    cross join days_and_more as days
    left join calendars
        on
            scopes.source_system = calendars.source_system
            and scopes.project_id = calendars.project_id
            and (
                scopes.stage_group_id = calendars.stage_group_id
                or calendars.stage_group_id is null
            )
            and calendars.effective_from <= {{ date_of_day('days.day') }}
            and (
                calendars.effective_to is null
                or {{ date_of_day('days.day') }} < calendars.effective_to
            )
    left join exceptions
        on
            scopes.source_system = exceptions.source_system
            and scopes.project_id = exceptions.project_id
            and {{ date_of_day('days.day') }} = exceptions.day
),

-- Seconds since 1970 as the clock on the wall counts them.
worked as (
    select
        local_days.calendar_scope_id,
        local_days.timezone,
        local_days.day,
        cast(local_days.day as bigint) * 86400 + hours_of_weekdays.opens_second as opens,
        cast(local_days.day as bigint) * 86400 + hours_of_weekdays.closes_second as closes
    from local_days
    inner join hours_of_weekdays
        on
            local_days.calendar_id = hours_of_weekdays.calendar_id
            and local_days.weekday = hours_of_weekdays.weekday
    where local_days.place = 1
    union all
    select
        calendar_scope_id,
        timezone,
        day,
        cast(day as bigint) * 86400 as opens,
        cast(day + 1 as bigint) * 86400 as closes
    from local_days
    where calendar_id is null
),

-- How far ahead a zone's clocks ever are.
leads as (
    select
        timezone,
        min(least(at_start, at_end)) as least_ahead,
        max(greatest(at_start, at_end)) as most_ahead
    from offsets
    group by timezone
),

-- The UTC days that a local day can reach into.
reached as (
    {%- for days_on in [-1, 0, 1, 2] %}
    select
        worked.calendar_scope_id,
        worked.timezone,
        worked.day + {{ days_on }} as day,
        worked.opens - cast(worked.day + {{ days_on }} as bigint) * 86400 as opens,
        worked.closes - cast(worked.day + {{ days_on }} as bigint) * 86400 as closes
    from worked
    inner join leads on worked.timezone = leads.timezone
    where
        worked.opens - leads.most_ahead < cast(worked.day + {{ days_on + 1 }} as bigint) * 86400
        and worked.closes - leads.least_ahead > cast(worked.day + {{ days_on }} as bigint) * 86400
    {%- if not loop.last %}
    union all
    {%- endif %}
    {%- endfor %}
),

pieces as (
    select
        reached.calendar_scope_id,
        reached.day,
        greatest(stretches.from_second, reached.opens - stretches.seconds_ahead) as from_second,
        least(stretches.to_second, reached.closes - stretches.seconds_ahead) as to_second
    from reached
    inner join stretches
        on
            reached.timezone = stretches.timezone
            and reached.day = stretches.day
),

-- Nights run into the hours of the next day: what overlaps or touches is one stretch.
begun as (
    select
        calendar_scope_id,
        day,
        from_second,
        to_second,
        case
            when from_second <= max(to_second) over (
                partition by calendar_scope_id, day
                order by from_second, to_second
                rows between unbounded preceding and 1 preceding
            ) then 0
            else 1
        end as begins
    from pieces
    where from_second < to_second
),

numbered as (
    select
        calendar_scope_id,
        day,
        from_second,
        to_second,
        sum(begins) over (
            partition by calendar_scope_id, day
            order by from_second, to_second
            rows between unbounded preceding and current row
        ) as piece
    from begun
),

merged as (
    select
        calendar_scope_id,
        day,
        piece,
        min(from_second) as from_second,
        max(to_second) as to_second
    from numbered
    group by calendar_scope_id, day, piece
),

by_day as (
    select
        calendar_scope_id,
        day,
        {%- for piece in range(1, working_pieces() + 1) %}
        max(case when piece = {{ piece }} then from_second end) as from_{{ piece }},
        max(case when piece = {{ piece }} then to_second end) as to_{{ piece }},
        {%- endfor %}
        count(*) as pieces,
        sum(to_second - from_second) as seconds
    from merged
    group by calendar_scope_id, day
),

final as (
    select
        scopes.calendar_scope_id,
        days.day as utc_day,
        cast(coalesce(sum(by_day.seconds) over (
            partition by scopes.calendar_scope_id
            order by days.day
            rows between unbounded preceding and 1 preceding
        ), 0) as bigint) as seconds_before,
        cast(coalesce(by_day.seconds, 0) as integer) as seconds,
        {%- for piece in range(1, working_pieces() + 1) %}
        cast(by_day.from_{{ piece }} as integer) as from_{{ piece }},
        cast(by_day.to_{{ piece }} as integer) as to_{{ piece }},
        {%- endfor %}
        coalesce(by_day.pieces, 0) as pieces
    from scopes
    cross join days
    left join by_day
        on
            scopes.calendar_scope_id = by_day.calendar_scope_id
            and days.day = by_day.day
)

select * from final
