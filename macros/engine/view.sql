{#-
    dbt drops the old view with `cascade`, and with it each view that stands on it: after a build of
    some models, views that were not among them would be gone. So a view is replaced in its place.
    PostgreSQL refuses that where a column goes or changes its type; then the views on it have to be
    made anew, and dbt's own way is taken.
-#}
{%- materialization view, adapter='postgres' -%}
    {%- set existing = load_cached_relation(this) -%}
    {%- if existing is none or not existing.is_view -%}
        {{ return(dbt.materialization_view_default()) }}
    {%- endif -%}
    {%- set target = this.incorporate(type='view') -%}

    {{ run_hooks(pre_hooks, inside_transaction=False) }}
    {{ run_hooks(pre_hooks, inside_transaction=True) }}

    {%- set query = replace_view_if_columns_stay(target, sql) -%}
    {% call statement('replaced', fetch_result=True) -%} {{ query }} {%- endcall %}
    {%- if load_result('replaced')['data'][0][0] != 'yes' -%}
        {{ return(dbt.materialization_view_default()) }}
    {%- endif -%}
    {% call noop_statement('main', 'CREATE VIEW') -%} {{ query }} {%- endcall %}

    {% do apply_grants(target, config.get('grants'), should_revoke(existing, full_refresh_mode=False)) %}
    {% do persist_docs(target, model) %}

    {{ run_hooks(post_hooks, inside_transaction=True) }}
    {{ adapter.commit() }}
    {{ run_hooks(post_hooks, inside_transaction=False) }}

    {{ return({'relations': [target]}) }}
{%- endmaterialization -%}

{% macro replace_view_if_columns_stay(relation, sql) -%}
    do $replace$
    begin
        perform set_config('stageline.view_was_replaced', 'yes', true);
        {{ get_replace_view_sql(relation, sql) }}
    exception when invalid_table_definition then
        perform set_config('stageline.view_was_replaced', 'no', true);
    end
    $replace$;
    select current_setting('stageline.view_was_replaced')
{%- endmacro %}
