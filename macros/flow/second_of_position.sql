{#- The inverse of working_position: the earliest second by which so much was worked. -#}
{% macro second_of_position(position, day) -%}
    {{ day }}.utc_day * cast(86400 as bigint) + case
        {%- set before = [day ~ '.seconds_before'] %}
        {%- for piece in range(1, working_pieces() + 1) %}
        {%- set worked_before = before | join(' + ') %}
        {%- do before.append('(' ~ day ~ '.to_' ~ piece ~ ' - ' ~ day ~ '.from_' ~ piece ~ ')') %}
        when {{ position }} <= {{ before | join(' + ') }}
            then {{ day }}.from_{{ piece }} + {{ position }} - ({{ worked_before }})
        {%- endfor %}
    end
{%- endmacro %}
