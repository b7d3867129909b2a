{% macro first_second_of_day(day, time_zone) -%}
    {#- Clocks may change at midnight: of the two offsets around it, the earlier start that the
        clock on the wall agrees with. -#}
    {%- set midnight = '(cast(' ~ day ~ ' as bigint) * 86400)' -%}
    least(
        {%- for second in [midnight ~ ' - 86400', midnight ~ ' + 86400'] %}
        {%- set start = '(' ~ midnight ~ ' - ' ~ utc_offset('(' ~ second ~ ')', time_zone) ~ ')' %}
        case when {{ start }} + {{ utc_offset(start, time_zone) }} >= {{ midnight }} then {{ start }} end
        {{- ',' if not loop.last }}
        {%- endfor %}
    )
{%- endmacro %}

{% macro date_before(day, months, days) -%}
    ({{ add_months(day, '-(' ~ months ~ ')') }} - ({{ days }}))
{%- endmacro %}

{% macro weekdays_between(first_day, last_day) -%}
    {#- Days since 1970, which was a Thursday: weekdays up to a day are 5 a week, and at most 5 of the
        days since the last Monday. -#}
    (
        {%- for day in [last_day, first_day] %}
        floor(({{ day }} + 3) / 7.0) * 5 + least(mod({{ day }} + 3, 7), 4)
        {{- ' - (' if loop.first else ')' }}
        {%- endfor %}
    )
{%- endmacro %}
