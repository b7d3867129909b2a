{% macro as_of() -%}
    {%- set given = var('as_of', '') | string -%}
    {%- set instant = modules.datetime.datetime.fromisoformat(given) if given else run_started_at -%}
    {%- if instant.tzinfo is none -%}
        {%- set instant = instant.replace(tzinfo=modules.pytz.utc) -%}
    {%- endif -%}
    cast('{{ instant.isoformat() }}' as {{ type_instant() }})
{%- endmacro %}

{% macro built_at() -%}
    cast('{{ run_started_at.isoformat() }}' as {{ type_instant() }})
{%- endmacro %}
