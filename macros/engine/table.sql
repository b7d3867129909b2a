{#-
    dbt states the primary key of a contract before it adds the rows, and each row then finds its place
    in the index: where there are many, that takes longer than the query. So the key is added last: the
    index is built over all rows at once, and rows that are there twice are refused all the same.
-#}
{% macro postgres__create_table_as(temporary, relation, sql) -%}
    {%- set constraints = adapter.render_raw_model_constraints(raw_constraints=model['constraints']) -%}
    {%- if temporary or not config.get('contract').enforced or not constraints -%}
        {{ return(dbt.postgres__create_table_as(temporary, relation, sql)) }}
    {%- endif -%}
    {{ get_assert_columns_equivalent(sql) }}
    create table {{ relation }} (
        {{ adapter.render_raw_columns_constraints(raw_columns=model['columns']) | join(', ') }}
    );
    insert into {{ relation }}
    {{ get_select_subquery(sql) }};
    {%- for constraint in constraints %}
    alter table {{ relation }} add {{ constraint }};
    {%- endfor %}
{%- endmacro %}
