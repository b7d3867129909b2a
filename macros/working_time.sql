{#-
    Most stretches of working time that a UTC day can hold with three windows a weekday: those of two
    local days, a night that began before them, and one in the hour that a clock shows twice.
-#}
{% macro working_pieces() -%} {{ return(8) }} {%- endmacro %}

{% macro working_position(second, calendar) -%}
    {{ calendar }}.seconds_before
    {%- for piece in range(1, working_pieces() + 1) %}
    + case when {{ calendar }}.from_{{ piece }} is null then 0 else
        greatest(0, least({{ second }} % 86400, {{ calendar }}.to_{{ piece }})
            - {{ calendar }}.from_{{ piece }})
    {%- endfor %}
    {{- ' end' * working_pieces() }}
{%- endmacro %}
