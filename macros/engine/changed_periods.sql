{#-
    Of a model that is incremental by period (week, month or weekday of a project, day of a forecast) a
    run builds those anew that are made of other things than when they were built. What each is made of is
    summed up in a number, and compared with the one that is kept. Nobody has to note who wrote what and
    when: a setting, an instant that was passed, a look back and a restored database all tell in the same
    way. Only what is large is not read for it: of calls and of items, `call_hours_contents` and
    `pipeline_items_contents` have such numbers for each day.
-#}

{#- A number of what is in a row of some kind; that of several rows is the sum of theirs. -#}
{% macro contents_of(kind, columns) -%}
    {{ return(adapter.dispatch('contents_of')(kind, columns)) }}
{%- endmacro %}

{% macro default__contents_of(kind, columns) -%}
    hash_record_extended(row({{ (["'" ~ kind ~ "'::text"] + columns) | join(', ') }}), 0)
{%- endmacro %}

{% macro spark__contents_of(kind, columns) -%}
    xxhash64({{ (["'" ~ kind ~ "'"] + columns) | join(', ') }})
{%- endmacro %}

{#- The table that keeps what each period of a model, of this one, was built of, and is made of now. -#}
{% macro kept_periods(name=none) -%}
    {{ return(intermediate_table((name or this.identifier) ~ '_periods')) }}
{%- endmacro %}

{#- A table that is no model, but is kept by one. -#}
{% macro intermediate_table(name) -%}
    {{ return(this.incorporate(path={
        'schema': generate_schema_name('intermediate', model), 'identifier': name,
    })) }}
{%- endmacro %}

{#- Hook of a model that is incremental by period. `parts` is a query of what periods are made of, one
    part a row (source_system, project_id, period_type, period_start, contents); `common_parts` one of
    what all periods of a project are made of (source_system, project_id, contents), or nothing. Beside
    that they are made of the model's own text. Where it takes several models to build a period, the
    first of them has the hook, and `models` are those after it, the last one the one that keeps them. -#}
{% macro begin_periods(parts, common_parts=none, models=[]) -%}
    {{ return(adapter.dispatch('begin_periods')(parts, common_parts, models)) }}
{%- endmacro %}

{% macro default__begin_periods(parts, common_parts, models) -%}
    {%- set kept_by = models[-1] if models else this.identifier -%}
    {%- set periods = kept_periods(kept_by) -%}
    {%- set texts = [model.raw_code] -%}
    {%- for name in models if execute -%}
        {%- do texts.append(graph.nodes['model.' ~ project_name ~ '.' ~ name].raw_code) -%}
    {%- endfor -%}
    create table if not exists {{ periods }} (
        source_system text,
        project_id text,
        period_type text,
        period_start date,
        built_of numeric,
        made_of numeric,
        primary key (source_system, project_id, period_type, period_start)
    );
    {%- if flags.FULL_REFRESH or load_relation(this.incorporate(path={'identifier': kept_by})) is none %}
    truncate {{ periods }};
    {%- endif %}
    update {{ periods }} set made_of = null where made_of is not null;
    insert into {{ periods }} (source_system, project_id, period_type, period_start, made_of)
    with
    parts as (
        select source_system, project_id, period_type, period_start, sum(contents) as contents
        from ({{ parts }}) as parts
        group by source_system, project_id, period_type, period_start
    ),
    common_parts as (
        {%- if common_parts %}
        select source_system, project_id, sum(contents) as contents
        from ({{ common_parts }}) as common_parts
        group by source_system, project_id
        {%- else %}
        select '' as source_system, '' as project_id, 0 as contents
        {%- endif %}
    )
    select
        source_system,
        project_id,
        parts.period_type,
        parts.period_start,
        parts.contents
        + coalesce(common_parts.contents, 0)
        + {{ contents_of(local_md5(texts | join), []) }}
    from parts
    left join common_parts using (source_system, project_id)
    on conflict (source_system, project_id, period_type, period_start)
    do update set made_of = excluded.made_of;
    analyze {{ periods }};
{%- endmacro %}

{% macro spark__begin_periods(parts, common_parts, models) -%} {%- endmacro %}

{#- Hook of a model that other ones begin periods for: where its table is not there any more, and it is
    made by what they hold now, periods that were built before are not among it. -#}
{% macro forget_built_periods() -%}
    {{ return(adapter.dispatch('forget_built_periods')()) }}
{%- endmacro %}

{% macro default__forget_built_periods() -%}
    {%- if not builds_changes() -%}
        delete from {{ kept_periods() }} where made_of = built_of
    {%- endif -%}
{%- endmacro %}

{% macro spark__forget_built_periods() -%} {%- endmacro %}

{#- Hook of such a model, in the same transaction, at its end. -#}
{% macro remember_periods() -%}
    {{ return(adapter.dispatch('remember_periods')()) }}
{%- endmacro %}

{% macro default__remember_periods() -%}
    {%- set periods = kept_periods() -%}
    delete from {{ periods }} where made_of is null;
    update {{ periods }} set built_of = made_of where built_of is distinct from made_of;
{%- endmacro %}

{% macro spark__remember_periods() -%} {%- endmacro %}

{#- A model that hooks read, and not the query: dbt builds it before, and a unit test need not give it. -#}
{% macro read_by_hooks(name) -%}
    {%- if not execute -%}
        {%- do ref(name) -%}
    {%- endif -%}
{%- endmacro %}

{% macro in_changed_periods(name=none) -%}
    in (
        select source_system, project_id, period_type, period_start
        from {{ kept_periods(name) }}
        where made_of is distinct from built_of
    )
{%- endmacro %}

{#- Condition that a run builds a period: all of them, or those that changed; if `with_previous`, those
    before them as well, which are told beside them. -#}
{% macro period_is_to_build(period_type, period_start, with_previous=false) -%}
    {%- if not builds_changes() -%}
        true
    {%- else -%}
        (
            (source_system, project_id, {{ period_type }}, {{ period_start }}) {{ in_changed_periods() }}
            {%- if with_previous %}
            or (source_system, project_id, {{ period_type }}, {{ next_period(period_type, period_start) }})
            {{ in_changed_periods() }}
            {%- endif %}
        )
    {%- endif -%}
{%- endmacro %}

{#- The same of the week, of the month, or of either, in which a date lies. Dates from before all that
    changed are told at once. -#}
{% macro week_is_to_build(date) -%}
    {{ since_changes(date) }}{{ period_is_to_build("'week'", week_of_date(date)) }}
{%- endmacro %}

{% macro month_is_to_build(date, with_previous=false) -%}
    {{ since_changes(date) }}{{ period_is_to_build("'month'", month_of_date(date), with_previous) }}
{%- endmacro %}

{% macro week_or_month_is_to_build(date) -%}
    {{ since_changes(date) -}}
    (
        {{ period_is_to_build("'week'", week_of_date(date)) }}
        or {{ period_is_to_build("'month'", month_of_date(date)) }}
    )
{%- endmacro %}

{#- The same of all days of a weekday, 1 to 7, which goes by its first day since 1970-01-05. -#}
{% macro weekday_is_to_build(weekday) -%}
    {{ period_is_to_build("'weekday'", period_of_weekday(weekday)) }}
{%- endmacro %}

{% macro period_of_weekday(weekday) -%}
    {{ date_of_day('(' ~ weekday ~ ' + 3)') }}
{%- endmacro %}

{#- Periods before those that changed may have to be told, too: a month at most. -#}
{% macro since_changes(date) -%}
    {%- if builds_changes() -%}
        {{ date }} >= (
            select min(period_start) - 31
            from {{ kept_periods() }}
            where made_of is distinct from built_of
        )
        and{{ ' ' }}
    {%- endif -%}
{%- endmacro %}

{% macro next_period(period_type, period_start) -%}
    case {{ period_type }}
        when 'week' then {{ period_start }} + 7
        else {{ add_months(period_start, 1) }}
    end
{%- endmacro %}

{#- dbt's incremental materialization asks for these by the names of the strategies, which say what tells
    the period of a row: the week in which `period_start` lies; `month`; `period_type` and
    `period_start`; `weekday`; the day `made_for_date`. -#}
{% macro get_incremental_by_week_sql(arguments) -%}
    {{ return(replace_periods(arguments, "'week'", week_of_date('built.period_start'))) }}
{%- endmacro %}

{% macro get_incremental_by_month_sql(arguments) -%}
    {{ return(replace_periods(arguments, "'month'", 'built.month')) }}
{%- endmacro %}

{% macro get_incremental_by_period_type_sql(arguments) -%}
    {{ return(replace_periods(arguments, 'built.period_type', 'built.period_start')) }}
{%- endmacro %}

{% macro get_incremental_by_weekday_sql(arguments) -%}
    {{ return(replace_periods(arguments, "'weekday'", period_of_weekday('built.weekday'))) }}
{%- endmacro %}

{% macro get_incremental_by_day_sql(arguments) -%}
    {{ return(replace_periods(arguments, "'day'", 'built.made_for_date')) }}
{%- endmacro %}

{#- What is not known to be as it was is replaced. -#}
{% macro replace_periods(arguments, period_type, period_start) -%}
    {%- set columns = get_quoted_csv(arguments.dest_columns | map(attribute='name')) %}
    delete from {{ arguments.target_relation }} as built
    where not exists (
        select from {{ kept_periods() }} as periods
        where
            periods.source_system = built.source_system
            and periods.project_id = built.project_id
            and periods.period_type = {{ period_type }}
            and periods.period_start = {{ period_start }}
            and periods.made_of = periods.built_of
    );
    insert into {{ arguments.target_relation }} ({{ columns }})
    select {{ columns }}
    from {{ arguments.temp_relation }};
{%- endmacro %}

{#- What weeks and months are made of, by what a model reads. `days` has queries of contents by day
    (source_system, project_id, day, contents), `periods` of contents by period; if `with_previous`, a
    period is made of the one before it, too. Each row counts with its date: what moves from a period to
    the next one changes both. -#}
{% macro parts_of_periods(period_types, days=[], periods=[], with_previous=false) -%}
    with
    parts as (
        {%- for query in days %}
        {%- for period_type in period_types %}
        select
            source_system,
            project_id,
            '{{ period_type }}' as period_type,
            {{ week_of_date('day') if period_type == 'week' else month_of_date('day') }} as period_start,
            {{ contents_of('day ' ~ loop.index, ['day', 'contents']) }} as contents
        from ({{ query }}) as days
        {{ 'union all' if not loop.last }}
        {%- endfor %}
        {{ 'union all' if not loop.last or periods }}
        {%- endfor %}
        {%- for query in periods %}
        select
            source_system,
            project_id,
            period_type,
            period_start,
            {{ contents_of('period ' ~ loop.index, ['period_type', 'period_start', 'contents']) }}
                as contents
        from ({{ query }}) as periods
        where period_type in ('{{ period_types | join("', '") }}')
        {{ 'union all' if not loop.last }}
        {%- endfor %}
    )
    select * from parts
    {%- if with_previous %}
    union all
    select
        source_system,
        project_id,
        period_type,
        {{ next_period('period_type', 'period_start') }},
        contents
    from parts
    {%- endif %}
{%- endmacro %}
