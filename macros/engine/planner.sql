{#-
    In the transaction that builds a flow model. The log comes sorted by project, entity and time, and a
    project's stages look few: PostgreSQL is drawn to merge by the project alone, and holds each event
    against every stage of its project. Of the entities that changed it expects a row, and loops over
    all of them for each: only where these are a handful that is the fastest.
-#}
{% macro plan_joins() -%}
    {{ return(adapter.dispatch('plan_joins')()) }}
{%- endmacro %}

{% macro default__plan_joins() -%}
    {%- if builds_changes() and config.get('incremental_strategy') == 'by_entity' -%}
        select set_config('enable_nestloop', 'off', true)
        from {{ ref('int_flow_changes') }}
        having count(*) > 20
    {%- else -%}
        set local enable_mergejoin = off
    {%- endif -%}
{%- endmacro %}

{% macro spark__plan_joins() -%} {%- endmacro %}

{#-
    In the transaction that builds a model of sales activity. They join what they have just grouped, of
    which PostgreSQL knows nothing: it expects a few rows, loops over all of them for each, merges by the
    project alone, or sorts by six texts what it is to group. All their joins that matter are equalities,
    which hashing serves however many rows there are, and so it does groups. (A join that can only loop
    still does; compiling what seems dear then would cost more.) How many reps and days there are a tenth
    of the usual sample tells; the usual one costs as much as making a wide table.
-#}
{% macro plan_hash_joins() -%}
    {{ return(adapter.dispatch('plan_hash_joins')()) }}
{%- endmacro %}

{% macro default__plan_hash_joins() -%}
    set local enable_mergejoin = off;
    set local enable_nestloop = off;
    set local enable_sort = off;
    set local jit = off;
    set local default_statistics_target = 10
{%- endmacro %}

{% macro spark__plan_hash_joins() -%} {%- endmacro %}

{#- At the end of a CTE: PostgreSQL would put its expressions in the place of their names, and compute
    them again at each use. -#}
{% macro computed_once() -%}
    {{ return(adapter.dispatch('computed_once')()) }}
{%- endmacro %}

{% macro default__computed_once() -%} offset 0 {%- endmacro %}

{% macro spark__computed_once() -%} {%- endmacro %}
