{#- A number in a sentence: whole, or with the decimals that it has, at most two. -#}
{% macro said_number(number) -%}
    {{ plain_number('round(cast(' ~ number ~ ' as ' ~ type_number() ~ '), 2)') }}
{%- endmacro %}

{#- A change in a sentence, with its sign. -#}
{% macro said_change(number) -%}
    {{ dbt.concat(["case when " ~ number ~ " > 0 then '+' else '' end", said_number(number)]) }}
{%- endmacro %}

{#- What is due of a week's number after the working days of it that have gone by. -#}
{% macro pro_rated(number, weeks) -%}
    cast({{ number }} * {{ weeks }}.days_gone / {{ weeks }}.working_days_in_week as {{ type_money() }})
{%- endmacro %}
