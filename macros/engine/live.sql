{#-
    Live views show what the last run built and, in place of the orders of which something was written
    since, what a run would build of them now: the tail. Functions give it, as planning its query costs
    more than most reads of a view: PostgreSQL keeps a function's plans for the session. They run with
    the rights of their owner, who may read the log, and see what the statement that reads the view
    sees, as they are not volatile: rows, position and log are always of one moment.
-#}

{% macro read_at() -%}
    {{ return(adapter.dispatch('read_at')()) }}
{%- endmacro %}

{#- Not now(): in a transaction that is kept open, that stands still. -#}
{% macro default__read_at() -%} statement_timestamp() {%- endmacro %}

{% macro spark__read_at() -%} {{ built_at() }} {%- endmacro %}

{% macro live_instant() -%}
    {{ as_of() if given_as_of() else read_at() }}
{%- endmacro %}

{% macro live_materialized() -%}
    {{ return(adapter.dispatch('live_materialized')()) }}
{%- endmacro %}

{% macro default__live_materialized() -%} {{ return('view') }} {%- endmacro %}

{% macro spark__live_materialized() -%} {{ return('table') }} {%- endmacro %}

{#- The functions of a model: which orders are in its tail, and what rows they have. -#}
{% macro tail_functions(relation) -%}
    {%- set functions = [] -%}
    {%- for suffix in ['_written', '_tail'] -%}
        {%- set path = {'identifier': relation.identifier ~ suffix} -%}
        {%- do functions.append(relation.incorporate(path=path).include(database=False)) -%}
    {%- endfor -%}
    {{ return(functions) }}
{%- endmacro %}

{#-
    A model of orders, live; a unit test has no tail. A filter on the key reaches the index of the
    model and the list of what is in the tail. What the tail costs is stated so high that PostgreSQL
    looks into this list first, and asks for rows only where something is left in it.
-#}
{% macro live(relation) -%}
    {{ return(adapter.dispatch('live')(relation)) }}
{%- endmacro %}

{% macro default__live(relation) -%}
    {%- if this is none -%} {{ relation }} {%- else -%}
    {%- set written, tail = tail_functions(relation) -%}
    (
        with written as (
            select * from {{ written }}()
        )

        select built.*
        from {{ relation }} as built
        where not exists (
            select 1
            from written
            where
                built.source_system = written.source_system
                and built.project_id = written.project_id
                and built.order_id = written.entity_id
        )
        union all
        select tail.*
        from written
        inner join {{ tail }}() as tail
            on
                written.source_system = tail.source_system
                and written.project_id = tail.project_id
                and written.entity_id = tail.order_id
    )
    {%- endif -%}
{%- endmacro %}

{% macro spark__live(relation) -%} {{ relation }} {%- endmacro %}

{#- For a post-hook of a live view: who may read it may have the tail. -#}
{% macro share_tail(relation) -%}
    {{ return(adapter.dispatch('share_tail')(relation)) }}
{%- endmacro %}

{% macro default__share_tail(relation) -%}
    {%- set readers = (config.get('grants') or {}).get('select', []) -%}
    {%- if readers -%}
    grant execute on function {{ tail_functions(relation) | join('(), ') }}()
    to {{ ([readers] if readers is string else readers) | join(', ') }}
    {%- endif -%}
{%- endmacro %}

{% macro spark__share_tail(relation) -%} {%- endmacro %}

{#-
    Query for the rows of a few entities, one entity after the other. PostgreSQL carries no join into a
    view that has windows, but it does carry the values of an outer row there, and to the indexes below.
-#}
{% macro rows_of_each(keys, relation, id='entity_id') -%}
    {{ return(adapter.dispatch('rows_of_each')(keys, relation, id)) }}
{%- endmacro %}

{% macro default__rows_of_each(keys, relation, id) -%}
    select found.*
    from {{ keys }} as keys
    cross join lateral (
        select * from {{ relation }} as records
        where
            records.source_system = keys.source_system
            and records.project_id = keys.project_id
            {%- if id == 'entity_id' %}
            and records.entity_type = 'order'
            {%- endif %}
            and records.{{ id }} = keys.entity_id
        -- Else the condition would become a join.
        offset 0
    ) as found
{%- endmacro %}

{% macro spark__rows_of_each(keys, relation, id) -%}
    select * from {{ relation }}
    where {{ is_one_of(keys, id) }}
{%- endmacro %}

{#- For a post-hook of a model of orders that a live view stands on: makes its functions. `query` is
    CTEs that compute the model, as one named like it, for the orders in CTE `written`. -#}
{% macro keep_tail(query) -%}
    {{ return(adapter.dispatch('keep_tail')(query)) }}
{%- endmacro %}

{% macro default__keep_tail(query) -%}
    {%- set written, tail = tail_functions(this) -%}
    {%- set model_type = this.include(database=False) -%}
    {#- One plan per session, made for a few orders whatever the planner thinks of the log. -#}
    {%- set properties -%}
        stable parallel safe security definer rows 50
        set search_path = pg_catalog, pg_temp
        set plan_cache_mode = force_generic_plan
        set enable_seqscan = off
        set max_parallel_workers_per_gather = 0
        set jit = off
    {%- endset -%}
    {%- set sources = [
        ref('base_receiver__entity_changes'),
        ref('base_keycrm__entity_changes'),
        ref('base_files__entity_changes'),
    ] -%}
    {%- set functions %}
    create or replace function {{ written }}()
    returns table (source_system text, project_id text, entity_id text)
    language plpgsql {{ properties }}
    as $function$
    #variable_conflict use_column
    declare
        since constant xid8 := {{ flow_position_here(this) }};
    begin
        return query
        select distinct source_system, project_id, entity_id
        from (
            {%- for source in sources %}
            (
                select * from {{ source }}
                where {{ is_written_since('written_xid', 'since') }}
                -- Else the kind could be looked up first, in another index.
                offset 0
            )
            {%- if not loop.last %} union all {%- endif %}
            {%- endfor %}
        ) as entities
        where entity_type = 'order';
    end
    $function$;
    revoke execute on function {{ written }}() from public;

    -- A table that was built anew is another type than the one before.
    do $block$
    begin
        if exists (
            select 1
            from pg_proc
            where
                oid = to_regprocedure('{{ tail }}()')
                and prorettype != '{{ model_type }}'::regtype
        ) then
            drop function {{ tail }}() cascade;
        end if;
    end
    $block$;
    create or replace function {{ tail }}()
    returns setof {{ model_type }}
    language plpgsql {{ properties }} cost 1000000
    as $function$
    begin
        return query
        with
        written as (
            select * from {{ written }}()
        ),
        {{ query }}
        select
            {%- for column in adapter.get_columns_in_relation(this) if execute %}
            {{ adapter.quote(column.name) }}
            {{- ',' if not loop.last }}
            {%- endfor %}
        from {{ this.identifier }};
    end
    $function$;
    revoke execute on function {{ tail }}() from public;
    {%- endset -%}
    {#- A function looks its tables up when it runs: in a copy of the database, in that one. -#}
    {{ functions | replace(adapter.quote(this.database) ~ '.', '') }}
{%- endmacro %}

{% macro spark__keep_tail(query) -%} {%- endmacro %}
