{#- Without these a fresh table looks to the planner as if it held a few rows, all different. -#}
{% macro gather_statistics(relation) -%}
    {%- if not is_incremental() -%}
        {{ adapter.dispatch('gather_statistics')(relation) }}
    {%- endif -%}
{%- endmacro %}

{% macro default__gather_statistics(relation) -%}
    analyze {{ relation }}
{%- endmacro %}

{% macro spark__gather_statistics(relation) -%}
    analyze table {{ relation }} compute statistics
{%- endmacro %}
