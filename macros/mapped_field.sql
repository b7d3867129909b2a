{#- What a record holds in a field of its CRM, named by a column: one of the account's own, or one of the
    fields that every account has in `columns`, field -> column. -#}
{% macro mapped_field(record, field, columns) -%}
    coalesce(
        {{ text_at(record ~ '.custom_fields', field) }},
        case {{ field }}
            {%- for name, column in columns.items() %}
            when '{{ name }}' then {{ record }}.{{ column }}
            {%- endfor %}
        end
    )
{%- endmacro %}
