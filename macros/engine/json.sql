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

{#- Aggregate: a JSON object of labels and their counts, those above zero. -#}
{% macro counts_by_label(label, count) -%}
    {{ return(adapter.dispatch('counts_by_label')(label, count)) }}
{%- endmacro %}

{% macro default__counts_by_label(label, count) -%}
    coalesce(
        cast(jsonb_object_agg({{ label }}, {{ count }}) filter (where {{ count }} > 0) as text), '{}'
    )
{%- endmacro %}

{% macro spark__counts_by_label(label, count) -%}
    to_json(
        map_from_entries(collect_list(case when {{ count }} > 0 then struct({{ label }}, {{ count }}) end))
    )
{%- endmacro %}
