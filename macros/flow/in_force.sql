{% macro in_force(setting, instant) -%}
    (
        {{ setting }}.effective_from <= {{ instant }}
        and ({{ setting }}.effective_to is null or {{ instant }} < {{ setting }}.effective_to)
    )
{%- endmacro %}
