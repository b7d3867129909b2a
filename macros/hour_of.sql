{% macro hour_of(instant) -%}
    {%- set second = epoch_second(instant) -%}
    {{ instant_of_second('(' ~ second ~ ' - ' ~ second ~ ' % 3600)') }}
{%- endmacro %}
