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
