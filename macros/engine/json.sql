{% macro text_in(document, field) -%}
    {{ return(adapter.dispatch('text_in')(document, field)) }}
{%- endmacro %}

{% macro default__text_in(document, field) -%}
    ({{ document }} ->> '{{ field }}')
{%- endmacro %}

{% macro spark__text_in(document, field) -%}
    get_json_object({{ document }}, '$.{{ field }}')
{%- endmacro %}

{#- As text_in, the field being a column or another expression; null where there is none. -#}
{% macro text_at(document, field) -%}
    {{ return(adapter.dispatch('text_at')(document, field)) }}
{%- endmacro %}

{% macro default__text_at(document, field) -%}
    (cast({{ document }} as jsonb) ->> {{ field }})
{%- endmacro %}

{% macro spark__text_at(document, field) -%}
    get_json_object({{ document }}, concat('$.', {{ field }}))
{%- endmacro %}
