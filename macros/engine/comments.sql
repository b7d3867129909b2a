{#- In place of dbt's: comments that stand already are not written again. Writing one waits for a vacuum
    of the table and then ends it; with a run every few minutes, none would come to its end. -#}
{% macro persist_docs(relation, model, for_relation=true, for_columns=true) -%}
    {{ return(adapter.dispatch('persist_docs')(relation, model, for_relation, for_columns)) }}
{%- endmacro %}

{% macro default__persist_docs(relation, model, for_relation, for_columns) -%}
    {%- set standing = {} -%}
    {%- for row in run_query(
        "select coalesce(attname, ''), coalesce(description, '')"
        ~ " from pg_description left join pg_attribute on attrelid = objoid and attnum = objsubid"
        ~ " and attnum > 0 where classoid = 'pg_class'::regclass and objoid = '" ~ relation
        ~ "'::regclass"
    ) -%}
        {%- do standing.update({row[0]: row[1]}) -%}
    {%- endfor -%}
    {%- if
        for_relation
        and config.persist_relation_docs()
        and model.description != standing.get('', '')
    -%}
        {%- do run_query(alter_relation_comment(relation, model.description)) -%}
    {%- endif -%}
    {%- set changed = {} -%}
    {%- for name, column in model.columns.items() -%}
        {%- if column.description != standing.get(name, '') -%}
            {%- do changed.update({name: column}) -%}
        {%- endif -%}
    {%- endfor -%}
    {%- if for_columns and config.persist_column_docs() and changed -%}
        {%- do run_query(alter_column_comment(relation, changed)) -%}
    {%- endif -%}
{%- endmacro %}

{% macro spark__persist_docs(relation, model, for_relation, for_columns) -%}
    {{ return(dbt_spark.spark__persist_docs(relation, model, for_relation, for_columns)) }}
{%- endmacro %}
