{#-
    What periods of sales activity are made of: queries of contents, by what a model reads, for
    `begin_periods` to sum up. What a model comes to read has to be added here.
-#}

{#- Contents of steps of items, and of sales, by day. -#}
{% macro item_days() -%}
    select source_system, project_id, day, contents
    from {{ pipeline_items_state('contents', ref('int_pipeline_items')) }}
    where read_for = 'kpis'
{%- endmacro %}

{#- Contents of who is in which team, by period in which items take steps. -#}
{% macro item_teams() -%}
    with
    periods as (
        {%- for period_type in ['week', 'month'] %}
        {%- set period_start = week_of_date('day') if period_type == 'week' else month_of_date('day') %}
        select distinct
            source_system,
            project_id,
            '{{ period_type }}' as period_type,
            {{ period_start }} as period_start,
            {{ next_period("'" ~ period_type ~ "'", period_start) }} - 1 as period_end
        from ({{ item_days() }}) as days
        {{ 'union all' if not loop.last }}
        {%- endfor %}
    )
    {{ teams_in('periods') }}
{%- endmacro %}

{% macro teams_in(periods) -%}
    {{ return(spans_in(
        periods, 'rep', ref('int_roster'), ['rep_id', 'team_id'], 'active_from', 'active_to'
    )) }}
{%- endmacro %}

{#- Contents of what reaches over days, by period; of each what lies in the period. -#}
{% macro spans_in(periods, kind, spans, columns, first_day, last_day) -%}
    select
        source_system,
        project_id,
        periods.period_type,
        periods.period_start,
        {{ contents_of(kind, columns + [
            'greatest(' ~ first_day ~ ', period_start)', 'least(' ~ last_day ~ ', period_end)',
        ]) }} as contents
    from {{ periods }} as periods
    inner join {{ spans }} as spans using (source_system, project_id)
    where period_end >= {{ first_day }} and ({{ last_day }} is null or period_start <= {{ last_day }})
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
    from {{ kept_periods('call_volume') }} as periods
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
    from {{ kept_periods(relation.identifier) }}
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
    {%- set read_of_targets = ['subject_type', 'subject_id', 'spans.period_type', 'target'] %}
    with
    weeks as (
        select
            source_system,
            project_id,
            'week' as period_type,
            week_start as period_start,
            week_start + 6 as period_end
        from {{ ref('int_work_days') }}
        union
        select
            source_system,
            project_id,
            'week',
            {{ week_of_date('call_date') }},
            {{ week_of_date('call_date') }} + 6
        from {{ call_hours }}
    )
    select
        source_system,
        project_id,
        'week' as period_type,
        {{ week_of_date('call_date') }} as period_start,
        {{ contents_of('calls', ['call_date', 'contents']) }} as contents
    from {{ call_hours }}
    union all
    select
        source_system,
        project_id,
        'week' as period_type,
        week_start,
        {{ contents_of('day', [
            'date_day', 'is_working_day', 'working_days_in_week', 'working_days_in_month',
            'date_day <= as_of_date', 'week_start <= as_of_week',
        ]) }}
    from {{ ref('int_work_days') }}
    union all
    {{ teams_in('weeks') }}
    union all
    {{ spans_in('weeks', 'target', targets, read_of_targets, 'day_from', 'day_to') }}
{%- endmacro %}

{#- What the weekdays of call_heatmap are made of: calls of the days that it shows, and who is in which
    team on them. -#}
{% macro call_heatmap_parts() -%}
    with
    days as (
        select * from {{ ref('int_work_days') }}
        where {{ is_in_activity_window() | indent(8) }}
    ),
    parts as (
        select
            days.*,
            {{ contents_of('calls', ['days.date_day', 'calls.contents']) }} as contents
        from days
        inner join {{ call_hours_state('contents', ref('int_call_hours')) }} as calls
            on
                days.source_system = calls.source_system
                and days.project_id = calls.project_id
                and days.date_day = calls.call_date
        union all
        select
            days.*,
            {{ contents_of('rep', ['days.date_day', 'roster.rep_id', 'roster.team_id']) }}
        from days
        inner join {{ ref('int_roster') }} as roster
            on
                days.source_system = roster.source_system
                and days.project_id = roster.project_id
                and days.date_day >= roster.active_from
                and (roster.active_to is null or days.date_day <= roster.active_to)
    )
    select
        source_system,
        project_id,
        'weekday' as period_type,
        {{ period_of_weekday('weekday') }} as period_start,
        contents
    from parts
{%- endmacro %}

{#- Condition that a run makes the forecast of a day: of all, or of those that are made of other things
    than when they were made, as int_forecast_days has said. -#}
{% macro forecast_is_to_build(made_for_day='made_for_day') -%}
    {{ return(adapter.dispatch('forecast_is_to_build')(made_for_day)) }}
{%- endmacro %}

{% macro default__forecast_is_to_build(made_for_day) -%}
    {%- if this is none or not execute -%}
        true
    {%- else -%}
        (source_system, project_id, 'day', {{ date_of_day(made_for_day) }})
        {{ in_changed_periods('int_subject_forecasts') }}
    {%- endif -%}
{%- endmacro %}

{% macro spark__forecast_is_to_build(made_for_day) -%} true {%- endmacro %}

{#- Hook of int_forecast_days: the models of forecasts after it hold those alone that have to be made. -#}
{% macro begin_forecasts() -%}
    {{ return(begin_periods(forecast_parts(), models=[
        'int_forecast_items', 'int_forecast_known', 'int_forecast_working_days',
        'int_forecast_curves', 'int_forecast_sales', 'int_step_forecasts', 'int_revenue_forecasts',
        'int_subject_forecasts',
    ])) }}
{%- endmacro %}

{#- What forecasts are made of: items and sales of the days learned from and of the month, who works on
    which of these days, and who was in which team. Of a rep who is not listed the end is not read. -#}
{% macro forecast_parts() -%}
    {%- set learned_from = 'made_for_day - ' ~ forecast_learned_days() %}
    {%- set recent_from = 'made_for_day - ' ~ forecast_recent_days() %}
    with
    made_for as (
        select * from {{ this }}
    ),
    days as (
        select source_system, project_id, {{ day_of_date('day') }} as day, contents
        from {{ pipeline_items_state('contents', ref('int_pipeline_items')) }}
        where read_for = 'forecasts'
        union all
        select
            source_system,
            project_id,
            sold_day,
            {{ contents_of('sale', [
                'rep_id', 'currency', 'item_key', 'list_out_day', 'sales', 'revenue', 'squared_revenue',
            ]) }}
        from {{ ref('int_forecast_sales') }}
    ),
    contents_of_days as (
        select source_system, project_id, day, sum(contents) as contents
        from days
        group by source_system, project_id, day
    ),
    parts as (
        select
            made_for.*,
            {{ contents_of('records', ['days.day', 'days.contents']) }} as contents
        from made_for
        inner join contents_of_days as days using (source_system, project_id)
        where days.day between {{ learned_from }} and last_of_month
        union all
        select
            made_for.*,
            {{ contents_of('working day', ['days.date_day']) }}
        from made_for
        inner join {{ ref('int_work_days') }} as days using (source_system, project_id)
        where
            days.is_working_day = 1
            and {{ day_of_date('days.date_day') }} between {{ recent_from }} and last_of_month
        union all
        select
            made_for.*,
            {{ contents_of('rep', [
                'rep_id',
                'team_id',
                day_of_date('active_from'),
                'least(case when is_listed then ' ~ day_of_date('active_to') ~ ' end, made_for_day)',
            ]) }}
        from made_for
        inner join {{ ref('int_roster') }} as roster using (source_system, project_id)
        where {{ day_of_date('active_from') }} <= made_for_day
        -- Days of which nothing of all that is known have a forecast, too.
        union all
        select
            made_for.*,
            0
        from made_for
    )
    select
        source_system,
        project_id,
        'day' as period_type,
        {{ date_of_day('made_for_day') }} as period_start,
        contents
    from parts
{%- endmacro %}
