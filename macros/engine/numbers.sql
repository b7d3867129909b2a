{#- The number that a text is; null where it is none. -#}
{% macro number_of(text) -%}
    {{ return(adapter.dispatch('number_of')(text)) }}
{%- endmacro %}

{% macro default__number_of(text) -%}
    (case when {{ text }} ~ '^\s*-?[0-9]{1,29}([.][0-9]+)?\s*$' then cast({{ text }} as numeric) end)
{%- endmacro %}

{% macro spark__number_of(text) -%}
    try_cast({{ text }} as decimal(38, 9))
{%- endmacro %}

{#- A number as text, without zeros that say nothing: 1250 for 1250.00. -#}
{% macro plain_number(number) -%}
    {{ return(adapter.dispatch('plain_number')(number)) }}
{%- endmacro %}

{% macro default__plain_number(number) -%}
    cast(trim_scale({{ number }}) as text)
{%- endmacro %}

{% macro spark__plain_number(number) -%}
    regexp_replace(regexp_replace(cast({{ number }} as string), '([.][0-9]*?)0+$', '$1'), '[.]$', '')
{%- endmacro %}

{#- The day that a text begins with; null where it begins with none. -#}
{% macro date_of(text) -%}
    {{ return(adapter.dispatch('date_of')(text)) }}
{%- endmacro %}

{% macro default__date_of(text) -%}
    (
        case
            when {{ text }} ~ '^[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])'
                then cast(left({{ text }}, 10) as date)
        end
    )
{%- endmacro %}

{% macro spark__date_of(text) -%}
    try_cast(left({{ text }}, 10) as date)
{%- endmacro %}
