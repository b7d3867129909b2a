{#- The instant that a run was given, ISO 8601; empty where it was given none. For another variable of
    dbt's the whole project is read anew; for the environment's it is not, as only a run asks for it. -#}
{% macro given_as_of() -%}
    {{ return(var('as_of', '') or (env_var('STAGELINE_DBT_AS_OF', '') if execute else '')) }}
{%- endmacro %}

{% macro as_of() -%}
    {%- set given = given_as_of() | string -%}
    {%- set instant = modules.datetime.datetime.fromisoformat(given) if given else run_started_at -%}
    {%- if instant.tzinfo is none -%}
        {%- set instant = instant.replace(tzinfo=modules.pytz.utc) -%}
    {%- endif -%}
    cast('{{ instant.isoformat() }}' as {{ type_instant() }})
{%- endmacro %}

{% macro built_at() -%}
    cast('{{ run_started_at.isoformat() }}' as {{ type_instant() }})
{%- endmacro %}
