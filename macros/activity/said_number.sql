{#- A number in a sentence: whole, or with the decimals that it has, at most two. -#}
{% macro said_number(number) -%}
    {{ plain_number('round(cast(' ~ number ~ ' as ' ~ type_number() ~ '), 2)') }}
{%- endmacro %}
