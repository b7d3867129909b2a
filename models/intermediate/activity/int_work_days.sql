{{ config(materialized='table', post_hook='{{ gather_statistics(this) }}') }}

with

rep_records as (
    select * from {{ ref('int_rep_records') }}
),

roster as (
    select * from {{ ref('int_roster') }}
),

known_projects as (
    select * from {{ ref('stg_projects') }}
),

dates as (
    select * from {{ ref('int_date_spine') }}
),

calendars as (
    select * from {{ ref('base_settings__calendars') }}
    where stage_group_id is null
),

windows as (
    select * from {{ ref('base_settings__calendar_windows') }}
),

exceptions as (
    select * from {{ ref('base_settings__day_exceptions') }}
),

worked_weekdays as (
    select distinct
        calendar_id,
        weekday
    from windows
),

-- A project whose reps are known has days before anything is recorded.
named_projects as (
    select
        source_system,
        project_id,
        first_date
    from rep_records
    union all
    select
        source_system,
        project_id,
        cast(null as date) as first_date
    from roster
),

projects as (
    select
        named_projects.source_system,
        named_projects.project_id,
        coalesce(max(known_projects.timezone), 'UTC') as timezone,
        coalesce(max(known_projects.currency), 'XXX') as project_currency,
        min(named_projects.first_date) as first_date
    from named_projects
    left join known_projects
        on
            named_projects.source_system = known_projects.source_system
            and named_projects.project_id = known_projects.project_id
    group by named_projects.source_system, named_projects.project_id
),

dated_projects as (
    select
        projects.*,
        {{ date_of_day(local_day(as_of(), 'projects.timezone')) }} as as_of_date,
        {{ local_month(as_of(), 'projects.timezone') }} as as_of_month
    from projects
),

bounded_projects as (
    select
        dated_projects.*,
        {{ month_of_date('coalesce(first_date, as_of_month)') }}
            as first_month,
        {{ add_months('as_of_month', 2) }} as end_month
    from dated_projects
),

-- A month more on either end, so that each week and month that is kept is counted whole.
days as (
    select
        bounded_projects.source_system,
        bounded_projects.project_id,
        bounded_projects.project_currency,
        bounded_projects.first_month,
        bounded_projects.end_month,
        bounded_projects.as_of_date,
        bounded_projects.as_of_month,
        dates.date_day,
        {{ day_of_date('dates.date_day') }} as day,
        {{ month_of_date('dates.date_day') }} as month
    from bounded_projects
    inner join dates
        on
            dates.date_day >= {{ add_months('bounded_projects.first_month', -1) }}
            and dates.date_day < {{ add_months('bounded_projects.end_month', 1) }}
),

weekdays as (
    select
        days.*,
        {{ weekday_of_day('days.day') }} as weekday
    from days
),

judged as (
    select
        weekdays.*,
        {{ date_of_day('(weekdays.day - weekdays.weekday + 1)') }} as week_start,
        case
            when exceptions.day is not null and exceptions.as_weekday is null then 0
            when calendars.calendar_id is null
                then {{ flag('coalesce(exceptions.as_weekday, weekdays.weekday) <= 5') }}
            when calendars.is_always_open or worked_weekdays.weekday is not null then 1
            else 0
        end as is_working_day
    from weekdays
    left join exceptions
        on
            weekdays.source_system = exceptions.source_system
            and weekdays.project_id = exceptions.project_id
            and weekdays.date_day = exceptions.day
    left join calendars
        on
            weekdays.source_system = calendars.source_system
            and weekdays.project_id = calendars.project_id
            and weekdays.date_day >= calendars.effective_from
            and (
                calendars.effective_to is null
                or weekdays.date_day < calendars.effective_to
            )
    left join worked_weekdays
        on
            calendars.calendar_id = worked_weekdays.calendar_id
            and coalesce(exceptions.as_weekday, weekdays.weekday) = worked_weekdays.weekday
),

flagged as (
    select
        judged.*,
        is_working_day * {{ flag('date_day < as_of_date') }} as is_gone
    from judged
),

counted as (
    select
        flagged.*,
        {%- for period, start in [('week', 'week_start'), ('month', 'month')] %}
        sum(is_working_day) over (
            partition by source_system, project_id, {{ start }}
        ) as working_days_in_{{ period }},
        sum(is_gone) over (
            partition by source_system, project_id, {{ start }}
        ) as working_days_gone_in_{{ period }},
        {%- endfor %}
        sum(is_working_day) over (
            partition by source_system, project_id order by date_day
        ) - is_working_day as working_days_before,
        sum(is_gone) over (partition by source_system, project_id) as working_days_gone,
        max(case when date_day = as_of_date then week_start end) over (
            partition by source_system, project_id
        ) as as_of_week,
        min(case when date_day = first_month then week_start end) over (
            partition by source_system, project_id
        ) as first_week,
        max(case when date_day < end_month then week_start end) over (
            partition by source_system, project_id
        ) as last_week
    from flagged
),

final as (
    select
        source_system,
        project_id,
        date_day,
        week_start,
        month,
        weekday,
        project_currency,
        as_of_date,
        as_of_week,
        as_of_month,
        is_working_day,
        working_days_before,
        working_days_gone,
        working_days_in_week,
        working_days_gone_in_week,
        working_days_in_month,
        working_days_gone_in_month
    from counted
    where week_start between first_week and last_week
)

select * from final
