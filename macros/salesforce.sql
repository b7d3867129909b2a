{#- What a record holds in a field of Salesforce, named by a column: one of the organisation's own, or
    one of the standard fields in `columns`, field -> column. -#}
{% macro salesforce_field(record, field, columns) -%}
    coalesce(
        {{ text_at(record ~ '.custom_fields', field) }},
        case {{ field }}
            {%- for name, column in columns.items() %}
            when '{{ name }}' then {{ record }}.{{ column }}
            {%- endfor %}
        end
    )
{%- endmacro %}

{#- The beginning of a day, UTC. -#}
{% macro start_of_day(day) -%}
    {{ instant_of_second(
        '86400 * ' ~ dbt.datediff("cast('1970-01-01' as date)", day, 'day')
    ) }}
{%- endmacro %}
