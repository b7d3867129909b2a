{#-
    dbt builds a table anew under another name, swaps the two, and drops the old one with `cascade`:
    each view that stands on it would be gone until it is built itself, and for longer where the build
    ends before that. So the views are led to the new table first, in the transaction that drops the
    old one: who reads them sees the old rows or the new ones. A view that does not fit the new table
    goes with the old one, to be built anew.
-#}
{% macro postgres__drop_relation(relation) -%}
    {%- set suffix = '__dbt_backup' -%}
    {%- if not relation.is_table or not relation.identifier.endswith(suffix) -%}
        {{ return(default__drop_relation(relation)) }}
    {%- endif -%}
    {%- set new_name = relation.identifier[:-(suffix | length)] -%}
    {%- call statement('drop_relation', fetch_result=True, auto_begin=False) %}
    {{ lead_views_to(relation, new_name) }}
    {{ get_drop_sql(relation) }};
    select views.schema_name, views.view_name
    from json_to_recordset(cast(current_setting('stageline.views') as json))
        as views (schema_name text, view_name text)
    inner join pg_namespace on views.schema_name = nspname
    inner join pg_class on pg_namespace.oid = relnamespace and views.view_name = relname
    {%- endcall %}
    {#- dbt takes all of them for dropped. -#}
    {%- for schema_name, view_name in load_result('drop_relation')['data'] -%}
        {%- do adapter.cache_added(api.Relation.create(
            database=relation.database, schema=schema_name, identifier=view_name, type='view'
        )) -%}
    {%- endfor -%}
{%- endmacro %}

{#- Statement that makes the views on a table read the one of another name in its schema, if there is
    one. Setting `stageline.views` then has all views that stood on the table, directly or not. -#}
{% macro lead_views_to(relation, new_name) -%}
    do $views$
    declare
        old_table constant regclass := to_regclass('{{ relation.include(database=False) }}');
        each record;
    begin
        perform set_config('stageline.views', '[]', true);
        perform set_config('stageline.views', json_agg(json_build_object(
            'schema_name', relnamespace::regnamespace::text, 'view_name', relname
        ))::text, true)
        from (
            with recursive
            above (view) as (
                select ev_class from pg_depend
                inner join pg_rewrite on pg_depend.objid = pg_rewrite.oid
                where
                    classid = 'pg_rewrite'::regclass
                    and refclassid = 'pg_class'::regclass
                    and refobjid = old_table
                union
                select ev_class from above
                inner join pg_depend on
                    pg_depend.classid = 'pg_rewrite'::regclass
                    and pg_depend.refclassid = 'pg_class'::regclass
                    and pg_depend.refobjid = above.view
                inner join pg_rewrite on pg_depend.objid = pg_rewrite.oid
            )
            select relnamespace, relname from above
            inner join pg_class on above.view = pg_class.oid
        ) as views
        having count(*) > 0;
        if to_regclass('{{ relation.incorporate(path={'identifier': new_name}).include(database=False) }}') is null then
            return;
        end if;
        -- In one order: a second build of another table takes its turn at the first view.
        for each in
            select distinct pg_class.oid, pg_class.oid::regclass as view
            from pg_depend
            inner join pg_rewrite on pg_depend.objid = pg_rewrite.oid
            inner join pg_class on pg_rewrite.ev_class = pg_class.oid
            where
                classid = 'pg_rewrite'::regclass
                and refclassid = 'pg_class'::regclass
                and refobjid = old_table
                and relkind = 'v'
            order by pg_class.oid
        loop
            begin
                execute format(
                    'create or replace view %s as %s',
                    each.view,
                    replace(
                        pg_get_viewdef(each.oid),
                        quote_ident('{{ relation.identifier }}'),
                        quote_ident('{{ new_name }}')
                    )
                );
            exception
                -- A column is gone or of another type; or the view is somebody else's.
                when syntax_error_or_access_rule_violation then null;
            end;
        end loop;
    end
    $views$;
{%- endmacro %}
