{{ config(
    materialized=flow_materialized(),
    incremental_strategy='by_month',
    on_schema_change='append_new_columns',
    pre_hook='{{ begin_periods(
        parts_of_periods(
            ["month"],
            days=[item_days()],
            periods=[item_teams(), subject_periods(), target_periods("lists_out")],
        ),
        name_parts(),
    ) }}',
    post_hook='{{ remember_periods() }}',
) }}
{{- read_by_hooks('int_pipeline_items') }}

with

steps as (
    select * from {{ ref('fct_item_steps') }}
    where
        excluded_reason is null
        and step in ('list_due', 'list_out')
        and {{ month_is_to_build('step_date') }}
),

subject_periods as (
    select * from {{ ref('int_subject_periods') }}
    where period_type = 'month' and {{ month_is_to_build('period_start') }}
),

targets as (
    select * from {{ ref('int_target_periods') }}
    where kpi = 'lists_out' and period_type = 'month'
),

subjects as (
    select * from {{ ref('int_subjects') }}
),

counted as (
    select
        source_system,
        project_id,
        {{ subject_columns() | indent(8) }},
        {%- for share in [50, 85, 95] %}
        {{ percentile_seconds(share / 100, 'seconds_since_step_before') }}
            as p{{ share }}_agreement_to_list_seconds,
        {%- endfor %}
        month,
        sum({{ flag("step = 'list_due'") }}) as lists_due,
        sum(is_list_due_by_now) as lists_due_by_now,
        sum(is_list_overdue) as lists_overdue,
        sum(is_list_on_time) as sent_on_time,
        sum({{ flag("step = 'list_out'") }}) as lists_out,
        count(list_size) as lists_with_size,
        coalesce(sum(list_size), 0) as total_list_size,
        {%- for share in [50, 85, 95] %}
        {{ percentile(share / 100, 'list_size') }} as p{{ share }}_list_size,
        {%- endfor %}
        sum(is_list_with_sale) as lists_with_sale,
        coalesce(sum(sales_from_list), 0) as sales_from_lists,
        sum(has_impossible_duration) as impossible_durations,
        count(seconds_since_step_before) as timed_lists,
        {{ mean_seconds('seconds_since_step_before') }} as avg_agreement_to_list_seconds
    from steps
    {{ group_by_subject(['month']) | indent(4) }}
),

months as (
    select
        source_system,
        project_id,
        subject_type,
        subject_id,
        period_start as month
    from subject_periods
    union
    select
        source_system,
        project_id,
        subject_type,
        subject_id,
        month
    from counted
),

final as (
    select
        months.source_system,
        months.project_id,
        months.subject_type,
        months.subject_id,
        coalesce(subjects.subject_name, months.subject_id) as subject_name,
        months.month,
        coalesce(counted.lists_due, 0) as lists_due,
        coalesce(counted.lists_due_by_now, 0) as lists_due_by_now,
        coalesce(counted.lists_overdue, 0) as lists_overdue,
        coalesce(counted.sent_on_time, 0) as sent_on_time,
        {{ pct('counted.sent_on_time', 'counted.lists_due_by_now') }} as on_time_pct,
        coalesce(counted.lists_out, 0) as lists_out,
        cast(targets.target as {{ type_money() }}) as target,
        {{ pct('coalesce(counted.lists_out, 0)', 'targets.target') }} as attainment_pct,
        coalesce(counted.lists_with_size, 0) as lists_with_size,
        cast(coalesce(counted.total_list_size, 0) as bigint) as total_list_size,
        {{ ratio('counted.total_list_size', 'counted.lists_with_size') }} as avg_list_size,
        counted.p50_list_size,
        counted.p85_list_size,
        counted.p95_list_size,
        coalesce(counted.lists_with_sale, 0) as lists_with_sale,
        {{ pct('counted.lists_with_sale', 'counted.lists_out') }} as first_sale_conversion_pct,
        cast(coalesce(counted.sales_from_lists, 0) as bigint) as sales_from_lists,
        coalesce(counted.timed_lists, 0) as timed_lists,
        coalesce(counted.impossible_durations, 0) as impossible_durations,
        counted.avg_agreement_to_list_seconds,
        counted.p50_agreement_to_list_seconds,
        counted.p85_agreement_to_list_seconds,
        counted.p95_agreement_to_list_seconds,
        {{ built_at() }} as updated_at
    from months
    left join counted
        on
            {{ same_subject('months', 'counted') | indent(12) }}
            and months.month = counted.month
    left join targets
        on
            {{ same_subject('months', 'targets') | indent(12) }}
            and months.month = targets.period_start
    left join subjects
        on
            {{ same_subject('months', 'subjects') | indent(12) }}
)

select * from final
