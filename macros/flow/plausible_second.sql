{% macro plausible_second(instant) -%}
    case when not {{ is_implausible(instant) }} then {{ epoch_second(instant) }} end
{%- endmacro %}
