{#- Without these a fresh table looks to the planner as if it held a few rows, all different. -#}
{% macro gather_statistics(relation) -%}
    {{ adapter.dispatch('gather_statistics')(relation) }}
{%- endmacro %}

{#- What a run adds to a table changes little, but for the first load into a table that was empty. -#}
{% macro default__gather_statistics(relation) -%}
    {%- if is_incremental() -%}
        do $$
        begin
            if
                pg_stat_get_xact_tuples_inserted('{{ relation }}'::regclass) * 10
                > (select reltuples from pg_class where oid = '{{ relation }}'::regclass)
            then
                analyze {{ relation }};
            end if;
        end
        $$
    {%- else -%}
        analyze {{ relation }}
    {%- endif -%}
{%- endmacro %}

{% macro spark__gather_statistics(relation) -%}
    analyze table {{ relation }} compute statistics
{%- endmacro %}
