{#- What a record holds in a field of Salesforce, named by a column: one of the organisation's own, or
    one of the standard fields in `columns`, field -> column. -#}
{% macro salesforce_field(record, field, columns) -%}
    {{ mapped_field(record, field, columns) }}
{%- endmacro %}

{#- The beginning of a day, UTC. -#}
{% macro start_of_day(day) -%}
    {{ instant_of_second(
        '86400 * ' ~ dbt.datediff("cast('1970-01-01' as date)", day, 'day')
    ) }}
{%- endmacro %}
