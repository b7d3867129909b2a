{#-
    Of a model that is incremental by period (week or month of a project) a run builds those anew that
    are made of other things than when they were built. What each is made of is summed up in a number,
    and compared with the one that is kept. Nobody has to note who wrote what and when: a setting, an
    instant that was passed, a look back and a restored database all tell in the same way. Only what is
    large is not read for it: of calls, `call_hours_contents` has such a number for each day.
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

{#- The table that keeps what each period of this model was built of, and is made of now. -#}
{% macro periods_of_this() -%}
    {{ return(intermediate_table(this.identifier ~ '_periods')) }}
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
    that they are made of the model's own text. -#}
{% macro begin_periods(parts, common_parts=none) -%}
    {{ return(adapter.dispatch('begin_periods')(parts, common_parts)) }}
{%- endmacro %}

{% macro default__begin_periods(parts, common_parts) -%}
    {%- set periods = periods_of_this() -%}
    create table if not exists {{ periods }} (
        source_system text,
        project_id text,
        period_type text,
        period_start date,
        built_of numeric,
        made_of numeric,
        primary key (source_system, project_id, period_type, period_start)
    );
    {%- if not builds_changes() %}
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
        + {{ contents_of(local_md5(model.raw_code), []) }}
    from parts
    left join common_parts using (source_system, project_id)
    on conflict (source_system, project_id, period_type, period_start)
    do update set made_of = excluded.made_of;
    analyze {{ periods }};
{%- endmacro %}

{% macro spark__begin_periods(parts, common_parts) -%} {%- endmacro %}

{#- Hook of such a model, in the same transaction, at its end. -#}
{% macro remember_periods() -%}
    {{ return(adapter.dispatch('remember_periods')()) }}
{%- endmacro %}

{% macro default__remember_periods() -%}
    {%- set periods = periods_of_this() -%}
    delete from {{ periods }} where made_of is null;
    update {{ periods }} set built_of = made_of where built_of is distinct from made_of;
{%- endmacro %}

{% macro spark__remember_periods() -%} {%- endmacro %}

{#- Condition that a run builds a period: all of them, or those that changed; if `with_previous`, those
    before them as well, which are told beside them. -#}
{% macro period_is_to_build(period_type, period_start, with_previous=false) -%}
    {%- if not builds_changes() -%}
        true
    {%- else -%}
        {%- set changed -%}
            in (
                select source_system, project_id, period_type, period_start
                from {{ periods_of_this() }}
                where made_of is distinct from built_of
            )
        {%- endset -%}
        (
            (source_system, project_id, {{ period_type }}, {{ period_start }}) {{ changed }}
            {%- if with_previous %}
            or (source_system, project_id, {{ period_type }}, {{ next_period(period_type, period_start) }})
            {{ changed }}
            {%- endif %}
        )
    {%- endif -%}
{%- endmacro %}

{#- The same of the week, of the month, or of either, in which a date lies. -#}
{% macro week_is_to_build(date) -%}
    {{ period_is_to_build("'week'", week_of_date(date)) }}
{%- endmacro %}

{% macro month_is_to_build(date, with_previous=false) -%}
    {{ period_is_to_build("'month'", month_of_date(date), with_previous) }}
{%- endmacro %}

{% macro week_or_month_is_to_build(date) -%}
    ({{ week_is_to_build(date) }} or {{ month_is_to_build(date) }})
{%- endmacro %}

{% macro next_period(period_type, period_start) -%}
    case {{ period_type }}
        when 'week' then {{ period_start }} + 7
        else {{ add_months(period_start, 1) }}
    end
{%- endmacro %}

{% macro month_of_date(date) -%}
    cast({{ dbt.date_trunc('month', date) }} as date)
{%- endmacro %}

{#- dbt's incremental materialization asks for these by the names of the strategies, which say what tells
    the period of a row: the week in which `period_start` lies; `month`; `period_type` and
    `period_start`. -#}
{% macro get_incremental_by_week_sql(arguments) -%}
    {{ return(replace_periods(arguments, "'week'", week_of_date('built.period_start'))) }}
{%- endmacro %}

{% macro get_incremental_by_month_sql(arguments) -%}
    {{ return(replace_periods(arguments, "'month'", 'built.month')) }}
{%- endmacro %}

{% macro get_incremental_by_period_type_sql(arguments) -%}
    {{ return(replace_periods(arguments, 'built.period_type', 'built.period_start')) }}
{%- endmacro %}

{#- What is not known to be as it was is replaced. -#}
{% macro replace_periods(arguments, period_type, period_start) -%}
    {%- set columns = get_quoted_csv(arguments.dest_columns | map(attribute='name')) %}
    delete from {{ arguments.target_relation }} as built
    where not exists (
        select from {{ periods_of_this() }} as periods
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

{#- Contents of steps of items, and of sales, by day. -#}
{% macro item_days() -%}
    select * from {{ ref('int_item_days') }}
{%- endmacro %}

{% macro sale_days() -%}
    select
        source_system,
        project_id,
        sold_date as day,
        {{ contents_of('sale', ['rep_id', 'team_id', 'is_sale', 'amount', 'currency']) }} as contents
    from {{ ref('fct_sales') }}
    where excluded_reason is null
{%- endmacro %}

{#- Contents of calls by day: a day is made of what its week is. -#}
{% macro call_days() -%}
    select
        periods.source_system,
        periods.project_id,
        periods.period_start + days.number as day,
        periods.made_of as contents
    from {{ intermediate_table('call_volume_periods') }} as periods
    cross join generate_series(0, 6) as days (number)
{%- endmacro %}

{#- Contents of who is active, and of targets of a KPI or of all, by period. -#}
{% macro subject_periods() -%}
    select
        source_system,
        project_id,
        period_type,
        period_start,
        {{ contents_of('subject', ['subject_type', 'subject_id', 'active_reps']) }} as contents
    from {{ ref('int_subject_periods') }}
{%- endmacro %}

{% macro target_periods(kpi=none, columns=['target']) -%}
    select
        source_system,
        project_id,
        period_type,
        period_start,
        {{ contents_of('target', ['subject_type', 'subject_id', 'kpi', 'currency'] + columns) }} as contents
    from {{ ref('int_target_periods') }}
    {{ "where kpi = '" ~ kpi ~ "'" if kpi }}
{%- endmacro %}

{#- Contents of the periods of another model that is incremental by period. -#}
{% macro contents_of_periods(relation) -%}
    select source_system, project_id, period_type, period_start, made_of as contents
    from {{ intermediate_table(relation.identifier ~ '_periods') }}
{%- endmacro %}

{#- What all periods of a project are made of whose rows have the names of reps. -#}
{% macro name_parts() -%}
    select
        source_system,
        project_id,
        {{ contents_of('name', ['subject_type', 'subject_id', 'subject_name']) }} as contents
    from {{ ref('int_subjects') }}
{%- endmacro %}

{#- The same of what a score weighs, and of the currency of the project. -#}
{% macro weight_parts() -%}
    select
        projects.source_system,
        projects.project_id,
        {{ contents_of('weight', ['weights.component', 'weights.weight']) }} as contents
    from (
        select distinct source_system, project_id from {{ ref('int_subject_periods') }}
    ) as projects
    cross join {{ ref('score_weights') }} as weights
{%- endmacro %}

{% macro currency_parts() -%}
    select
        source_system,
        project_id,
        {{ contents_of('currency', ['max(project_currency)']) }} as contents
    from {{ ref('int_work_days') }}
    group by source_system, project_id
{%- endmacro %}

{#- What the weeks of call_volume are made of. -#}
{% macro call_volume_parts() -%}
    {%- set call_hours = call_hours_state('contents', ref('int_call_hours')) %}
    with
    weeks as (
        select source_system, project_id, week_start, week_start + 6 as week_end
        from {{ ref('int_work_days') }}
        union
        select
            source_system,
            project_id,
            {{ week_of_date('call_date') }},
            {{ week_of_date('call_date') }} + 6
        from {{ call_hours }}
    ),
    parts as (
        select
            source_system,
            project_id,
            {{ week_of_date('call_date') }} as week_start,
            {{ contents_of('calls', ['call_date', 'contents']) }} as contents
        from {{ call_hours }}
        union all
        select
            source_system,
            project_id,
            week_start,
            {{ contents_of('day', [
                'date_day', 'is_working_day', 'working_days_in_week', 'working_days_in_month',
                'date_day <= as_of_date', 'week_start <= as_of_week',
            ]) }}
        from {{ ref('int_work_days') }}
        union all
        select
            weeks.source_system,
            weeks.project_id,
            weeks.week_start,
            {{ contents_of('rep', [
                'roster.rep_id', 'roster.team_id', 'greatest(roster.active_from, weeks.week_start)',
                'least(roster.active_to, weeks.week_end)',
            ]) }}
        from weeks
        inner join {{ ref('int_roster') }} as roster
            on
                weeks.source_system = roster.source_system
                and weeks.project_id = roster.project_id
                and weeks.week_end >= roster.active_from
                and (roster.active_to is null or weeks.week_start <= roster.active_to)
        union all
        select
            weeks.source_system,
            weeks.project_id,
            weeks.week_start,
            {{ contents_of('target', [
                'targets.subject_type', 'targets.subject_id', 'targets.period_type',
                'targets.target', 'greatest(targets.day_from, weeks.week_start)',
                'least(targets.day_to, weeks.week_end)',
            ]) }}
        from weeks
        inner join {{ ref('int_target_ranges') }} as targets
            on
                weeks.source_system = targets.source_system
                and weeks.project_id = targets.project_id
                and weeks.week_end >= targets.day_from
                and (targets.day_to is null or weeks.week_start <= targets.day_to)
        where targets.kpi = 'calls'
    )
    select source_system, project_id, 'week' as period_type, week_start as period_start, contents
    from parts
{%- endmacro %}
