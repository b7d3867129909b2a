{% macro as_of() -%}
    cast('{{ var("as_of", "") or run_started_at.isoformat() }}' as {{ type_instant() }})
{%- endmacro %}

{% macro built_at() -%}
    cast('{{ run_started_at.isoformat() }}' as {{ type_instant() }})
{%- endmacro %}
