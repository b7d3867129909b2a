{#-
    Flow models are incremental by entity: a run builds those deals and orders anew, whole, of which
    something was written since the models were built. "Since" is a position: the oldest transaction
    that was still running when the changes were looked for. All rows of older ones were visible, so
    a row that commits after one with a later time is not missed. `flow_positions` keeps, for each
    model, up to where it reflects what was written: as far as the list of changes that it was built
    with, and no farther than the models it reads. Beside it stands the instant that the model was made
    for: events that lie between that and the next one change what is to be seen, too. What a position
    stands on is kept once, in `flow_basis`: when that differs, all positions go back to the beginning.
-#}

{% macro flow_positions(beside) -%}
    {{ return(beside.incorporate(path={'identifier': 'flow_positions'})) }}
{%- endmacro %}

{%- macro flow_basis_kept(beside) -%}
    {{ return(beside.incorporate(path={'identifier': 'flow_basis'})) }}
{%- endmacro %}

{#- What flow models that are built by what changed were built on, beside what was written: the seeds
    that they read, whether the run was given an instant (only then deletions count by when they
    happened), and the server that counts transactions. A dump that is restored to another server
    brings positions and rows along that mean nothing there. -#}
{% macro flow_basis(instant=none) -%}
    {%- set seeds = [
        ref('canonical_major_stages'),
        ref('canonical_substages'),
        ref('canonical_stage_boundaries'),
    ] -%}
    (
        select
            concat_ws(
                ' ',
                (select system_identifier from pg_control_system()),
                '{{ instant or ('by as_of' if given_as_of() else 'by now') }}',
                md5(string_agg(definitions.line, ',' order by definitions.line))
            )
        from (
            select '' as line
            {%- for seed in seeds if execute and load_relation(seed) is not none %}
            union all
            select '{{ seed.identifier }}' || cast(to_jsonb(seeded) as text) as line
            from {{ seed }} as seeded
            {%- endfor %}
        ) as definitions
    )
{%- endmacro %}

{#- In the transaction that builds int_flow_changes, before it looks for changes. -#}
{% macro begin_flow_changes() -%}
    {{ return(adapter.dispatch('begin_flow_changes')()) }}
{%- endmacro %}

{% macro default__begin_flow_changes() -%}
    {%- set basis = flow_basis_kept(this) -%}
    create table if not exists {{ flow_positions(this) }} (
        model text primary key,
        position xid8 not null,
        as_of timestamptz not null
    );
    create table if not exists {{ flow_touched(this) }} (
        model text not null,
        source_system text,
        project_id text,
        since timestamptz
    );
    create table if not exists {{ basis }} (basis text not null);
    update {{ flow_positions(this) }}
    set position = '0'
    where not exists (select 1 from {{ basis }} where basis = {{ flow_basis() }});
    delete from {{ basis }};
    insert into {{ basis }} (basis) values ({{ flow_basis() }});
    insert into {{ flow_positions(this) }} (model, position, as_of)
    values ('{{ this.identifier }}', pg_snapshot_xmin(pg_current_snapshot()), {{ as_of() }})
    on conflict (model) do update set position = excluded.position, as_of = excluded.as_of;
{%- endmacro %}

{% macro spark__begin_flow_changes() -%} {%- endmacro %}

{#- In the transaction that builds a flow model. -#}
{% macro remember_flow_position() -%}
    {{ return(adapter.dispatch('remember_flow_position')()) }}
{%- endmacro %}

{% macro default__remember_flow_position() -%}
    {%- set changes = ref('int_flow_changes') -%}
    {%- set read = [changes.identifier] -%}
    {%- for parent in model.depends_on.nodes if is_flow_model(parent) -%}
        {%- do read.append(graph.nodes[parent].alias) -%}
    {%- endfor -%}
    insert into {{ flow_positions(changes) }} (model, position, as_of)
    select
        '{{ this.identifier }}',
        min(position),
        max(as_of) filter (where model = '{{ changes.identifier }}')
    from {{ flow_positions(changes) }}
    where model in ('{{ read | join("', '") }}')
    on conflict (model) do update set position = excluded.position, as_of = excluded.as_of;
    {{- note_all_touched() }}
{%- endmacro %}

{% macro spark__remember_flow_position() -%} {%- endmacro %}

{#- How a model is kept that is built by what changed; Spark builds it whole. -#}
{% macro flow_materialized() -%}
    {{ return(adapter.dispatch('flow_materialized')()) }}
{%- endmacro %}

{% macro default__flow_materialized() -%} {{ return('incremental') }} {%- endmacro %}

{% macro spark__flow_materialized() -%} {{ return('table') }} {%- endmacro %}

{#- Whether a node is a model that is built by what changed. dbt makes a dictionary of a node whenever it
    is looked at: all of them are not to be looked at for each model. -#}
{% macro is_flow_model(id) -%}
    {%- set config = graph.nodes[id].config if execute and id.startswith('model.') else {} -%}
    {{ return(config.get('incremental_strategy') in ('by_entity', 'by_calendar_scope')) }}
{%- endmacro %}

{#- The position of a model, as a scalar subquery; null before it is built. -#}
{% macro flow_position_of(relation) -%}
    (select position from {{ flow_positions(ref('int_flow_changes')) }} where model = '{{ relation.identifier }}')
{%- endmacro %}

{#- The same for what is read between builds: the beginning, until there is a build on this server. -#}
{% macro flow_position_here(relation) -%}
    (
        select
            case
                when split_part(kept.basis, ' ', 1) = control.system_identifier::text
                    then {{ flow_position_of(relation) }}
                else '0'
            end
        from {{ flow_basis_kept(ref('int_flow_changes')) }} as kept
        cross join pg_control_system() as control
    )
{%- endmacro %}

{#- An aggregate over the positions of the flow models, the same way. -#}
{% macro over_flow_positions(aggregate) -%}
    {%- set names = [] -%}
    {%- for id in (graph.nodes if execute else []) if is_flow_model(id) -%}
        {%- do names.append(graph.nodes[id].alias) -%}
    {%- endfor -%}
    (
        select {{ aggregate }} from {{ flow_positions(this) }}
        where model in ('{{ names | join("', '") }}')
    )
{%- endmacro %}

{#- Condition that a transaction wrote after a position. One that is still to come on this server wrote
    on another: its row came with a dump, and all such rows were built from the beginning. -#}
{% macro is_written_since(xid, position) -%}
    {{ return(adapter.dispatch('is_written_since')(xid, position)) }}
{%- endmacro %}

{% macro default__is_written_since(xid, position) -%}
    (
        {{ xid }} >= {{ position }}
        and ({{ xid }} < pg_snapshot_xmax(pg_current_snapshot()) or {{ position }} = '0')
    )
{%- endmacro %}

{% macro spark__is_written_since(xid, position) -%} {{ xid }} >= {{ position }} {%- endmacro %}

{#-
    dbt's incremental materialization asks for this by the name of the strategy. A table of orders
    alone knows them by `order_id`.
-#}
{% macro get_incremental_by_entity_sql(arguments) -%}
    {%- set columns = get_quoted_csv(arguments.dest_columns | map(attribute='name')) -%}
    {%- set is_of_orders = 'order_id' in arguments.dest_columns | map(attribute='name') -%}
    {#- What is few here, and what is not, PostgreSQL knows: no join has to be kept from it. #}
    set local enable_nestloop to default;
    {{- note_touched(arguments.target_relation, arguments.temp_relation) }}
    {{- recount_stages(arguments.target_relation, arguments.temp_relation) }}
    delete from {{ arguments.target_relation }} as built
    using {{ ref('int_flow_changes') }} as changed
    where
        built.source_system = changed.source_system
        and built.project_id = changed.project_id
        and {{ "'order'" if is_of_orders else 'built.entity_type' }} = changed.entity_type
        and built.{{ 'order_id' if is_of_orders else 'entity_id' }} = changed.entity_id;
    insert into {{ arguments.target_relation }} ({{ columns }})
    select {{ columns }}
    from {{ arguments.temp_relation }};
{%- endmacro %}

{#- Calendar scopes; where a run builds what changed, those whose days a change of a setting touches. -#}
{% macro calendar_scopes_to_build() -%}
    {%- set changes = ref('base_settings__changes') -%}
    {%- set calendars = ref('base_settings__calendars') -%}
    select * from {{ ref('int_calendar_scopes') }} as scopes
    {%- if builds_changes() %}
    where exists (
        select 1
        from {{ changes }} as settings_changes
        left join {{ calendars }} as calendars on settings_changes.calendar_id = calendars.calendar_id
        where
            {{ is_written_since(
                'settings_changes.written_xid', "coalesce(" ~ flow_position_of(this) ~ ", '0')"
            ) }}
            and settings_changes.table_name in (
                'projects', 'calendars', 'calendar_windows', 'day_exceptions'
            )
            and scopes.source_system = coalesce(settings_changes.source_system, calendars.source_system)
            and scopes.project_id = coalesce(settings_changes.project_id, calendars.project_id)
    )
    {%- endif %}
{%- endmacro %}

{#- A scope without any working day has no rows in a table of working days. -#}
{% macro get_incremental_by_calendar_scope_sql(arguments) -%}
    {%- set columns = get_quoted_csv(arguments.dest_columns | map(attribute='name')) -%}
    {%- set is_of_working_days = 'position_day' in arguments.dest_columns | map(attribute='name') -%}
    delete from {{ arguments.target_relation }}
    where
        calendar_scope_id in (select calendar_scope_id from {{ arguments.temp_relation }})
        or calendar_scope_id not in (
            select calendar_scope_id
            from {{ ref('int_working_calendar') ~ ' where seconds > 0' if is_of_working_days else ref('int_calendar_scopes') }}
        );
    insert into {{ arguments.target_relation }} ({{ columns }})
    select {{ columns }}
    from {{ arguments.temp_relation }};
{%- endmacro %}

{#-
    Condition that a row belongs to one of the entities that `entities` lists. The arrays say it
    again, less exactly: PostgreSQL carries them into views and to indexes, a join it does not.
-#}
{% macro is_one_of(entities, id='entity_id') -%}
    {{ return(adapter.dispatch('is_one_of')(entities, id)) }}
{%- endmacro %}

{% macro default__is_one_of(entities, id) -%}
    {{ spark__is_one_of(entities, id) }}
    and source_system = any(array(select distinct source_system from {{ entities }}))
    and project_id = any(array(select distinct project_id from {{ entities }}))
    and {{ id }} = any(array(select distinct entity_id from {{ entities }}))
{%- endmacro %}

{% macro spark__is_one_of(entities, id) -%}
    (source_system, project_id, {{ 'entity_type' if id == 'entity_id' else "'order'" }}, {{ id }})
    in (select source_system, project_id, entity_type, entity_id from {{ entities }})
{%- endmacro %}

{#- Whether a run builds what changed, and not everything; a unit test has no relation to add to. -#}
{% macro builds_changes() -%}
    {{ return(this is not none and is_incremental()) }}
{%- endmacro %}

{#- Where a run builds what changed, `where` with the condition that an entity did. -#}
{% macro where_changed(id='entity_id', word='where') -%}
    {%- if not execute -%}
        {%- do ref('int_flow_changes') -%}
    {%- elif builds_changes() -%}
        {{ word }} {{ is_one_of(ref('int_flow_changes'), id) }}
    {%- endif -%}
{%- endmacro %}

{#- A relation; where a run builds what changed, those of its rows whose entity did. -#}
{% macro those_changed(relation, id='entity_id') -%}
    {%- set condition = where_changed(id) -%}
    {{ '(select * from ' ~ relation ~ ' ' ~ condition ~ ')' if condition else relation }}
{%- endmacro %}

{#- int_stage_intervals as the last run left it; none before the first. -#}
{% macro built_visits() -%}
    {%- if execute -%}
        {{ return(load_relation(this.incorporate(path={'identifier': 'int_stage_intervals'}))) }}
    {%- endif -%}
{%- endmacro %}
