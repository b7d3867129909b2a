{#-
    Figures of periods and days are built anew from the first one on that has changed, and others for
    the projects in which anything has. A model that they group states in `meta.touches` at which
    instants its rows count in them, and by what else of a row their figures depend on it. Where a run
    replaces rows of the model, `flow_touched` keeps the earliest instant at which old and new ones
    differ, until the figures are built; where it is null, and where no project is named, everything
    has changed.
-#}

{% macro flow_touched(beside) -%}
    {{ return(beside.incorporate(path={'identifier': 'flow_touched'})) }}
{%- endmacro %}

{#- Before the rows of a model are replaced by those of another relation. -#}
{% macro note_touched(replaced, by) -%}
    {%- set touched = flow_touched(ref('int_flow_changes')) %}
    {%- for touch in model.config.meta.get('touches', []) %}
    {%- set columns = [touch.at ~ ' as touched_at'] -%}
    {%- for expression in touch.by -%}
        {%- do columns.append(expression ~ ' as part_' ~ loop.index) -%}
    {%- endfor -%}
    {%- set columns = columns | join(', ') %}
    insert into {{ touched }} (model, source_system, project_id, since)
    with
    removed as (
        select source_system, project_id, {{ columns }}
        from {{ replaced }} as built
        where {{ touch.at }} is not null and {{ is_one_of(ref('int_flow_changes'), touch.get('id', 'entity_id')) }}
    ),
    added as (
        select source_system, project_id, {{ columns }}
        from {{ by }}
        where {{ touch.at }} is not null
    ),
    differing as (
        (select * from removed except all select * from added)
        union all
        (select * from added except all select * from removed)
    )
    select '{{ replaced.identifier }}', source_system, project_id, min(touched_at)
    from differing
    group by source_system, project_id;
    {%- endfor %}
{%- endmacro %}

{#- After a model was built whole. -#}
{% macro note_all_touched() -%}
    {%- if model.config.meta.get('touches') and not builds_changes() %}
    insert into {{ flow_touched(ref('int_flow_changes')) }} (model) values ('{{ this.identifier }}');
    {%- endif %}
{%- endmacro %}

{#- In the transaction that builds the figures: they are up to date. -#}
{% macro forget_touched() -%}
    {{ return(adapter.dispatch('forget_touched')()) }}
{%- endmacro %}

{% macro default__forget_touched() -%}
    delete from {{ flow_touched(ref('int_flow_changes')) }}
    where model in ({{ names_of_touching_models() }})
{%- endmacro %}

{% macro spark__forget_touched() -%} {%- endmacro %}

{% macro names_of_touching_models() -%}
    {%- set names = ["''"] -%}
    {%- for parent in model.depends_on.nodes if graph.nodes[parent].config.meta.get('touches') -%}
        {%- do names.append("'" ~ graph.nodes[parent].alias ~ "'") -%}
    {%- endfor -%}
    {{ names | join(', ') }}
{%- endmacro %}

{#- Condition that a model that is grouped has other rows in the project of a relation's row. -#}
{% macro is_in_touched_project(relation) -%}
    exists (
        select 1
        from {{ flow_touched(ref('int_flow_changes')) }} as touched
        where
            touched.model in ({{ names_of_touching_models() }})
            and (
                touched.source_system is null
                or (touched.source_system, touched.project_id)
                = ({{ relation }}.source_system, {{ relation }}.project_id)
            )
    )
{%- endmacro %}

{#- A model that is grouped; where a run builds what changed, the rows of projects with other ones. -#}
{% macro those_touched(relation) -%}
    {%- if not execute -%}
        {%- do ref('int_flow_changes') -%}
    {%- endif -%}
    {%- if builds_changes() -%}
    (select grouped.* from {{ relation }} as grouped where {{ is_in_touched_project('grouped') }}) as touched_rows
    {%- else -%}
    {{ relation }}
    {%- endif -%}
{%- endmacro %}

{#- dbt's incremental materialization asks for this by the name of the strategy. -#}
{% macro get_incremental_by_project_sql(arguments) -%}
    {%- set columns = get_quoted_csv(arguments.dest_columns | map(attribute='name')) -%}
    delete from {{ arguments.target_relation }} as built
    where {{ is_in_touched_project('built') }};
    insert into {{ arguments.target_relation }} ({{ columns }})
    select {{ columns }}
    from {{ arguments.temp_relation }};
{%- endmacro %}

{#- An instant before all that may be in the log. -#}
{% macro before_all_time() -%}
    {{ return(adapter.dispatch('before_all_time')()) }}
{%- endmacro %}

{% macro default__before_all_time() -%}
    cast('4001-01-01 00:00+00 BC' as timestamptz)
{%- endmacro %}

{% macro spark__before_all_time() -%}
    cast('0001-01-01T00:00:00+00:00' as timestamp)
{%- endmacro %}

{#- One row per project, with its time zone: figures of periods that end after `since` are to be built,
    and stand on what happened from `read_since` on. -#}
{% macro projects_to_build() -%}
    {%- if not execute -%}
        {%- do ref('int_flow_changes') -%}
        {%- do ref('base_settings__changes') -%}
    {%- endif -%}
    {{ return(adapter.dispatch('projects_to_build')()) }}
{%- endmacro %}

{% macro default__projects_to_build() -%}
    select
        touched.*,
        -- The month in which it lies in any zone, and the week of which that month has the end.
        date_trunc('month', since - interval '1 day') - interval '8 days' as read_since
    from (
        select
            projects.source_system,
            projects.project_id,
            projects.timezone,
            {%- if builds_changes() %}
            {%- set changes = ref('int_flow_changes') %}
            least(
                (
                    select min(coalesce(touched.since, {{ before_all_time() }}))
                    from {{ flow_touched(changes) }} as touched
                    where
                        touched.model in ({{ names_of_touching_models() }})
                        and (
                            touched.source_system is null
                            or (touched.source_system, touched.project_id)
                            = (projects.source_system, projects.project_id)
                        )
                ),
                (
                    select {{ before_all_time() }}
                    from {{ ref('base_settings__changes') }} as settings_changes
                    where
                        settings_changes.table_name = 'projects'
                        and settings_changes.source_system = projects.source_system
                        and settings_changes.project_id = projects.project_id
                        and {{ is_written_since(
                            'settings_changes.written_xid', flow_position_of(this)
                        ) }}
                    limit 1
                ),
                -- What lay ahead when they were built last, or lies ahead now.
                (
                    select least(as_of, {{ as_of() }}) from {{ flow_positions(changes) }}
                    where model = '{{ this.identifier }}'
                )
            ) as since
            {%- else %}
            {{ before_all_time() }} as since
            {%- endif %}
        from (
            select source_system, project_id, timezone from {{ ref('stg_projects') }}
            {%- if builds_changes() %}
            -- Events may name a project that is not among the known ones.
            union all
            select source_system, project_id, 'UTC' as timezone
            from (
                select source_system, project_id from {{ flow_touched(ref('int_flow_changes')) }}
                where model in ({{ names_of_touching_models() }}) and source_system is not null
                union
                select source_system, project_id from {{ this }}
            ) as named
            where not exists (
                select 1
                from {{ ref('stg_projects') }} as known
                where
                    named.source_system = known.source_system
                    and named.project_id = known.project_id
            )
            {%- endif %}
        ) as projects
    ) as touched
{%- endmacro %}

{% macro spark__projects_to_build() -%}
    select
        source_system,
        project_id,
        timezone,
        {{ before_all_time() }} as since,
        {{ before_all_time() }} as read_since
    from {{ ref('stg_projects') }}
{%- endmacro %}

{#- dbt's incremental materialization asks for this by the name of the strategy. -#}
{% macro get_incremental_by_period_sql(arguments) -%}
    {%- set columns = get_quoted_csv(arguments.dest_columns | map(attribute='name')) -%}
    {%- set names = arguments.dest_columns | map(attribute='name') | list -%}
    with projects as materialized (
        {{ projects_to_build() }}
    )
    delete from {{ arguments.target_relation }} as built
    where not exists (
        select 1
        from projects
        where
            built.source_system = projects.source_system
            and built.project_id = projects.project_id
            {%- if 'period_type' in names %}
            and built.period_start
            < {{ local_period('built.period_type', 'projects.since', 'projects.timezone') }}
            {%- else %}
            and built.day < {{ local_day('projects.since', 'projects.timezone') }}
            {%- endif %}
    );
    insert into {{ arguments.target_relation }} ({{ columns }})
    select {{ columns }}
    from {{ arguments.temp_relation }};
{%- endmacro %}
