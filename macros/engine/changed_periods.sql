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
    {{ return(this.incorporate(path={
        'schema': generate_schema_name('intermediate', model),
        'identifier': this.identifier ~ '_periods',
    })) }}
{%- endmacro %}

{#- Hook of a model that is incremental by period. `parts` is a query of what periods are made of, one
    part a row (source_system, project_id, period_type, period_start, contents); `common_parts` one of
    what all periods of a project are made of (source_system, project_id, contents). Beside that they
    are made of the model's own text. -#}
{% macro begin_periods(parts, common_parts) -%}
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
        select source_system, project_id, sum(contents) as contents
        from ({{ common_parts }}) as common_parts
        group by source_system, project_id
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

{#- Where a run builds what changed, `where` (or another word) with the condition that a period is to be
    built anew. -#}
{% macro where_period_changed(period_type, period_start, word='where') -%}
    {%- if builds_changes() -%}
        {{ word }} (source_system, project_id, {{ period_type }}, {{ period_start }})
        in (
            select source_system, project_id, period_type, period_start
            from {{ periods_of_this() }}
            where made_of is distinct from built_of
        )
    {%- endif -%}
{%- endmacro %}

{#- The same of the week in which a date lies. -#}
{% macro where_week_changed(date, word='where') -%}
    {{ where_period_changed("'week'", week_of_date(date), word) }}
{%- endmacro %}

{#- dbt's incremental materialization asks for these by the names of the strategies: rows are of the week
    in which `period_start` lies. What is not known to be as it was is replaced. -#}
{% macro get_incremental_by_week_sql(arguments) -%}
    {{ return(replace_periods(arguments, "'week'", week_of_date('built.period_start'))) }}
{%- endmacro %}

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

{#- What all periods of a project are made of whose rows have the names of reps. -#}
{% macro name_parts() -%}
    select
        source_system,
        project_id,
        {{ contents_of('name', ['subject_type', 'subject_id', 'subject_name']) }} as contents
    from {{ ref('int_subjects') }}
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
