{% macro is_implausible(instant) -%}
    ({{ instant }} < cast('2000-01-01T00:00:00+00:00' as {{ type_instant() }})
    or {{ instant }} >= cast('2100-01-01T00:00:00+00:00' as {{ type_instant() }}))
{%- endmacro %}
