{#- What several days have to bring. Thirds of a target are cut somewhere: together they stay a little
    under the half that would be rounded up. -#}
{% macro target_of_days(column) -%}
    round(round(sum({{ column }}), 10), 4)
{%- endmacro %}
