{% macro whole_numbers(last) -%}
    {{ return(adapter.dispatch('whole_numbers')(last)) }}
{%- endmacro %}

{% macro default__whole_numbers(last) -%}
    select cast(numbers.n as integer) as n
    from generate_series(0, {{ last }}) as numbers (n)
{%- endmacro %}

{% macro spark__whole_numbers(last) -%}
    select explode(sequence(0, {{ last }})) as n
{%- endmacro %}
