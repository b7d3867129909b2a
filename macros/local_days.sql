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
