{#-
    int_pipeline_items is incremental by item: a run builds those anew that were written since it was
    built, by the transaction that PostgreSQL keeps with each row of `raw_files.pipeline_items`; those
    of which something lay ahead and has come to pass, or the other way round; those of projects whose
    settings changed; and takes those away that are gone. So nothing in it may change as time goes by
    without one of the item's own instants being passed: ages, and the week of today, are told by
    fct_pipeline_items. Beside it `pipeline_items_contents` keeps numbers of what items bring to each
    day, for models that stand on this one. They are sums, and follow what comes and what goes.
-#}

{#- A table beside int_pipeline_items, which `model` is. -#}
{% macro pipeline_items_state(name, model=this) -%}
    {{ return(model.incorporate(path={'identifier': 'pipeline_items_' ~ name})) }}
{%- endmacro %}

{#- In the transaction that builds the model, before it looks for changes. -#}
{% macro begin_pipeline_items() -%}
    {{ return(adapter.dispatch('begin_pipeline_items')()) }}
{%- endmacro %}

{#- What is gone leaves no trace but that more items are built than there are, but for new ones. Which
    they are is looked up only then. -#}
{% macro default__begin_pipeline_items() -%}
    {%- set changed = pipeline_items_state('changed') -%}
    {%- set written = source('raw_files', 'pipeline_items') -%}
    create table if not exists {{ changed }} (
        source_system text,
        project_id text,
        item_id text,
        primary key (source_system, project_id, item_id)
    );
    create table if not exists {{ pipeline_items_state('contents') }} (
        read_for text,
        source_system text,
        project_id text,
        day date,
        contents numeric not null,
        primary key (read_for, source_system, project_id, day)
    );
    {{ begin_position(ref('sales_stages')) }}
    truncate {{ changed }};
    {%- if builds_changes() %}
    insert into {{ changed }} (source_system, project_id, item_id)
    with
    since as (
        {{ since_position() }}
    )
    select written.source_system, written.project_id, written.item_id
    from {{ written }} as written
    cross join since
    where
        {{ is_row_written_since('written', 'since.position') }}
        {%- for instant in [
            'created_at', 'call_conducted_at', 'proposal_at', 'agreement_at', 'partner_list_due_at',
            'partner_list_sent_at', 'first_sale_at', 'closed_at',
        ] %}
        or (written.{{ instant }} > since.earlier and written.{{ instant }} <= since.later)
        {%- endfor %}
        or (written.source_system, written.project_id) in (
            select settings_changes.source_system, settings_changes.project_id
            from {{ ref('base_settings__changes') }} as settings_changes
            cross join since
            where
                settings_changes.table_name = 'projects'
                and {{ is_written_since('settings_changes.written_xid', 'since.position') }}
        );
    analyze {{ changed }};
    insert into {{ changed }} (source_system, project_id, item_id)
    select built.source_system, built.project_id, built.item_id
    from {{ this }} as built
    where
        (select count(*) from {{ this }}) != (
            select count(*)
            from ({{ records_of_active_projects([ref('base_files__pipeline_items')]) }}) as counted
        ) - (
            select count(*)
            from {{ changed }} as new_items
            where not exists (
                select from {{ this }} as built_before
                where {{ same_item('built_before', 'new_items') }}
            )
        )
        and not exists (
            select from {{ written }} as written
            where {{ same_item('written', 'built') }}
        );
    {%- endif %}
{%- endmacro %}

{% macro spark__begin_pipeline_items() -%} {%- endmacro %}

{% macro same_item(one, other) -%}
    {%- for column in ['source_system', 'project_id', 'item_id'] -%}
    {{ 'and ' if not loop.first }}{{ one }}.{{ column }} = {{ other }}.{{ column }}{{ ' ' if not loop.last }}
    {%- endfor -%}
{%- endmacro %}

{#- Where a run builds what changed, `where` with the condition that an item did. -#}
{% macro where_item_is_to_build() -%}
    {%- if not execute -%}
        {%- do source('raw_files', 'pipeline_items') -%}
        {%- for name in [
            'base_files__pipeline_items', 'base_settings__changes', 'sales_stages', 'stg_projects',
        ] -%}
            {%- do ref(name) -%}
        {%- endfor -%}
    {%- elif builds_changes() -%}
        where
        (source_system, project_id, item_id)
        in (select source_system, project_id, item_id from {{ pipeline_items_state('changed') }})
    {%- endif -%}
{%- endmacro %}

{#- dbt's incremental materialization asks for this by the name of the strategy. -#}
{% macro get_incremental_by_item_sql(arguments) -%}
    {%- set columns = get_quoted_csv(arguments.dest_columns | map(attribute='name')) -%}
    {%- set contents = pipeline_items_state('contents') -%}
    {%- set changed = pipeline_items_state('changed') %}
    insert into {{ contents }} (read_for, source_system, project_id, day, contents)
    with
    gone as (
        select * from {{ arguments.target_relation }}
        where (source_system, project_id, item_id) in (select * from {{ changed }})
    ),
    parts as (
        {{ item_parts('gone', '-') }}
        union all
        {{ item_parts(arguments.temp_relation, '+') }}
    )
    select read_for, source_system, project_id, day, sum(contents)
    from parts
    group by read_for, source_system, project_id, day
    having sum(contents) != 0
    on conflict (read_for, source_system, project_id, day)
    do update set contents = {{ contents.identifier }}.contents + excluded.contents;
    delete from {{ arguments.target_relation }} as built
    using {{ changed }} as changed
    where {{ same_item('built', 'changed') }};
    insert into {{ arguments.target_relation }} ({{ columns }})
    select {{ columns }}
    from {{ arguments.temp_relation }};
{%- endmacro %}

{#- In the same transaction, at its end. -#}
{% macro remember_pipeline_items() -%}
    {{ return(adapter.dispatch('remember_pipeline_items')()) }}
{%- endmacro %}

{% macro default__remember_pipeline_items() -%}
    {%- set contents = pipeline_items_state('contents') -%}
    {{ remember_position() }}
    {%- if builds_changes() %}
    delete from {{ contents }} where contents = 0;
    {%- else %}
    truncate {{ contents }};
    insert into {{ contents }} (read_for, source_system, project_id, day, contents)
    select read_for, source_system, project_id, day, sum(contents)
    from ({{ item_parts(this, '+') }}) as parts
    group by read_for, source_system, project_id, day;
    analyze {{ contents }};
    {%- endif %}
{%- endmacro %}

{% macro spark__remember_pipeline_items() -%} {%- endmacro %}

{#- Query of what items bring to days, by what reads it. A model that comes to read something else of
    items has to name it here. To read them once for each part costs a quarter of what it costs to make
    rows of all parts. -#}
{% macro item_parts(items, sign) -%}
    {%- set read_by_kpis = {
        'cohort_date': ['steps_reached'],
        'proposal_date': [],
        'agreement_date': ['has_impossible_proposal_to_agreement', 'proposal_to_agreement_seconds'],
        'list_due_date': ['is_list_due_by_now', 'is_list_overdue', 'list_out_at <= list_due_at'],
        'list_out_date': [
            'first_sale_at is not null', 'list_size', 'sales_from_list',
            'has_impossible_agreement_to_list', 'agreement_to_list_seconds',
        ],
    } -%}
    {%- set parts = [] -%}
    {%- for date, columns in read_by_kpis.items() -%}
        {%- do parts.append(('kpis', date, date, ['rep_id'] + columns)) -%}
    {%- endfor -%}
    {%- for kpi, step in forecast_steps().items() -%}
        {%- set read = ['rep_id', 'sublist_key is not null', step.entry] -%}
        {%- set end = 'greatest(closed_date, ' ~ step.entry ~ ')' -%}
        {%- do parts.append(('forecasts', kpi ~ ' entry', step.entry, read)) -%}
        {%- do parts.append(('forecasts', kpi ~ ' event', step.event, read)) -%}
        {%- do parts.append((
            'forecasts',
            kpi ~ ' closed',
            'case when closed_date is not null then ' ~ end ~ ' end',
            read + [step.event],
        )) -%}
    {%- endfor -%}
    {%- for read_for, kind, date, columns in parts %}
    select
        '{{ read_for }}' as read_for,
        source_system,
        project_id,
        {{ date }} as day,
        {{ sign }}sum({{ contents_of(kind, columns) }}) as contents
    from {{ items }}
    where excluded_reason is null and {{ date }} is not null
    group by {{ date }}, project_id, source_system
    {{ 'union all' if not loop.last }}
    {%- endfor %}
{%- endmacro %}
