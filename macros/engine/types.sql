{% macro type_instant() -%}
    {{ return(adapter.dispatch('type_instant')()) }}
{%- endmacro %}

{% macro default__type_instant() -%} timestamptz {%- endmacro %}

{% macro spark__type_instant() -%} timestamp {%- endmacro %}

{% macro type_number() -%}
    {{ return(adapter.dispatch('type_number')()) }}
{%- endmacro %}

{% macro default__type_number() -%} numeric {%- endmacro %}

{% macro spark__type_number() -%} decimal(38, 9) {%- endmacro %}

{% macro type_money() -%}
    {{ return(adapter.dispatch('type_money')()) }}
{%- endmacro %}

{% macro default__type_money() -%} numeric(38, 4) {%- endmacro %}

{% macro spark__type_money() -%} decimal(38, 4) {%- endmacro %}

{% macro type_label() -%}
    {{ return(adapter.dispatch('type_label')()) }}
{%- endmacro %}

{% macro default__type_label() -%} text {%- endmacro %}

{% macro spark__type_label() -%} string {%- endmacro %}

{#- A text, to be sorted by its bytes, whatever the language of the database. -#}
{% macro by_bytes(text) -%}
    {{ return(adapter.dispatch('by_bytes')(text)) }}
{%- endmacro %}

{% macro default__by_bytes(text) -%} {{ text }} collate "C" {%- endmacro %}

{% macro spark__by_bytes(text) -%} {{ text }} {%- endmacro %}
