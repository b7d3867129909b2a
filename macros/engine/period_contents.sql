{#-
    What weeks and months of sales activity are made of: queries of contents, by what a model reads, for
    `begin_periods` to sum up. What a model comes to read has to be added here.
-#}

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

{#- What the weeks of call_volume are made of; of a rep's time and of a target, what lies in the week. -#}
{% macro call_volume_parts() -%}
    {%- set call_hours = call_hours_state('contents', ref('int_call_hours')) %}
    {%- set targets = '(select * from ' ~ ref('int_target_ranges') ~ " where kpi = 'calls')" %}
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
        {%- for kind, spans, columns, first_day, last_day in [
            ('rep', ref('int_roster'), ['rep_id', 'team_id'], 'active_from', 'active_to'),
            (
                'target', targets, ['subject_type', 'subject_id', 'period_type', 'target'],
                'day_from', 'day_to',
            ),
        ] %}
        union all
        select
            source_system,
            project_id,
            week_start,
            {{ contents_of(kind, columns + [
                'greatest(' ~ first_day ~ ', week_start)', 'least(' ~ last_day ~ ', week_end)',
            ]) }}
        from weeks
        inner join {{ spans }} as spans using (source_system, project_id)
        where week_end >= {{ first_day }} and ({{ last_day }} is null or week_start <= {{ last_day }})
        {%- endfor %}
    )
    select source_system, project_id, 'week' as period_type, week_start as period_start, contents
    from parts
{%- endmacro %}
