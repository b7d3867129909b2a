{#- Numbers of reps, of their teams and of all together: `grouping sets` over rep, team and neither. -#}
{% macro subject_columns() -%}
    cast(
        case
            when grouping(rep_id) = 0 then 'rep'
            when grouping(team_id) = 0 then 'team'
            else 'all'
        end as {{ type_label() }}
    ) as subject_type,
    cast(
        case
            when grouping(rep_id) = 0 then rep_id
            when grouping(team_id) = 0 then team_id
            else 'all'
        end as {{ type_label() }}
    ) as subject_id
{%- endmacro %}

{% macro group_by_subject(columns=[]) -%}
    {%- set others = ['source_system', 'project_id'] + columns -%}
    group by grouping sets (
        ({{ others | join(', ') }}, rep_id),
        ({{ others | join(', ') }}, team_id),
        ({{ others | join(', ') }})
    )
{%- endmacro %}

{#- Condition of a join by subject. -#}
{% macro same_subject(one, other) -%}
    {%- for column in ['source_system', 'project_id', 'subject_type', 'subject_id'] -%}
    {{ 'and ' if not loop.first }}{{ one }}.{{ column }} = {{ other }}.{{ column }}{{ ' ' if not loop.last }}
    {%- endfor -%}
{%- endmacro %}

{#- Condition of a left join of int_roster: the team that a rep was in on a day. -#}
{% macro in_team_on(records, date, roster='roster') -%}
    {{ records }}.source_system = {{ roster }}.source_system
    and {{ records }}.project_id = {{ roster }}.project_id
    and {{ records }}.rep_id = {{ roster }}.rep_id
    and {{ date }} >= {{ roster }}.active_from
    and ({{ roster }}.active_to is null or {{ date }} <= {{ roster }}.active_to)
{%- endmacro %}

{#- Monday of the week in which a date lies. -#}
{% macro week_of_date(date) -%}
    {%- set day = day_of_date(date) -%}
    {{ date_of_day('(' ~ day ~ ' - ' ~ weekday_of_day(day) ~ ' + 1)') }}
{%- endmacro %}

{#- First day of the month in which it lies. -#}
{% macro month_of_date(date) -%}
    cast({{ dbt.date_trunc('month', date) }} as date)
{%- endmacro %}

{#- Condition that a day of int_work_days is one of those that calls are shown of by weekday and hour. -#}
{% macro is_in_activity_window() -%}
    {{ day_of_date('date_day') }}
    between {{ day_of_date('as_of_date') }} - {{ var('activity_window_days') }} + 1
    and {{ day_of_date('as_of_date') }}
{%- endmacro %}

{#- Weeks and months up to those of `as_of`, of a project's days. The first week, which ends in the first
    month that is told of, may begin in the one before, of which only some days are known. -#}
{% macro periods_of(work_days) -%}
    {%- for period, start in [('week', 'week_start'), ('month', 'month')] %}
    select
        source_system,
        project_id,
        cast('{{ period }}' as {{ type_label() }}) as period_type,
        {{ start }} as period_start,
        {{ start }} = as_of_{{ period }} as is_running,
        working_days_in_{{ period }} as working_days,
        working_days_gone,
        sum(is_working_day) as known_working_days,
        min(date_day) as first_day,
        max(date_day) as last_day
    from (
        select
            days.*,
            {{ date_of_day(day_of_date(
                'min(date_day) over (partition by source_system, project_id)'
            ) ~ ' + 6') }} as first_week_end
        from {{ work_days }} as days
    ) as bounded
    where
        {{ start }} <= as_of_{{ period }}
        {%- if period == 'month' %}
        and month >= {{ month_of_date('first_week_end') }}
        {%- endif %}
    group by
        source_system,
        project_id,
        {{ start }},
        as_of_{{ period }},
        working_days_in_{{ period }},
        working_days_gone
    {%- if not loop.last %}
    union all
    {%- endif %}
    {%- endfor %}
{%- endmacro %}
