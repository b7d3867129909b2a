{% macro text_in(document, field) -%}
    {{ return(adapter.dispatch('text_in')(document, field)) }}
{%- endmacro %}

{% macro default__text_in(document, field) -%}
    ({{ document }} ->> '{{ field }}')
{%- endmacro %}

{% macro spark__text_in(document, field) -%}
    get_json_object({{ document }}, '$.{{ field }}')
{%- endmacro %}
