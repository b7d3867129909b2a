{#-
    dbt drops the old view with `cascade`, and with it each view that stands on it: after a build of
    some models, views that were not among them would be gone. So a view whose columns stay is
    replaced in its place. PostgreSQL refuses that where a column goes or changes its type; then the
    views on it have to be made anew, and dbt's own way is taken.
-#}
{%- materialization view, adapter='postgres' -%}
    {%- set existing = load_cached_relation(this) -%}
    {%- if existing is none or not existing.is_view or not view_keeps_its_columns(existing, sql) -%}
        {{ return(dbt.materialization_view_default()) }}
    {%- endif -%}
    {%- set target = this.incorporate(type='view') -%}

    {{ run_hooks(pre_hooks, inside_transaction=False) }}
    {{ run_hooks(pre_hooks, inside_transaction=True) }}

    {% call statement('main') -%}
        {{ get_replace_view_sql(target, sql) }}
    {%- endcall %}

    {% do apply_grants(target, config.get('grants'), should_revoke(existing, full_refresh_mode=False)) %}
    {% do persist_docs(target, model) %}

    {{ run_hooks(post_hooks, inside_transaction=True) }}
    {{ adapter.commit() }}
    {{ run_hooks(post_hooks, inside_transaction=False) }}

    {{ return({'relations': [target]}) }}
{%- endmaterialization -%}

{% macro view_keeps_its_columns(existing, sql) -%}
    {%- set probe = make_intermediate_relation(existing) -%}
    {% do drop_relation_if_exists(load_cached_relation(probe)) %}
    {% call statement('probe') -%}
        {{ get_create_view_as_sql(probe, sql) }}
    {%- endcall %}
    {% call statement('lost', fetch_result=True) -%}
        select count(*) as columns
        from pg_attribute as old
        left join pg_attribute as new
            on
                new.attrelid = to_regclass('{{ probe.include(database=False) }}')
                and old.attnum = new.attnum
                and old.attname = new.attname
                and old.atttypid = new.atttypid
                and old.atttypmod = new.atttypmod
                and old.attcollation = new.attcollation
        where
            old.attrelid = to_regclass('{{ existing.include(database=False) }}')
            and old.attnum > 0
            and new.attnum is null
    {%- endcall %}
    {% call statement('probed') -%}
        drop view {{ probe }}
    {%- endcall %}
    {{ return(load_result('lost')['data'][0][0] == 0) }}
{%- endmacro %}
