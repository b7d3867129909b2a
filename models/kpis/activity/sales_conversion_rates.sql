{{ config(
    materialized=flow_materialized(),
    incremental_strategy='by_month',
    on_schema_change='append_new_columns',
    pre_hook='{{ begin_periods(
        parts_of_periods(
            ["month"], days=[item_days()], periods=[item_teams(), subject_periods()]
        ),
        name_parts(),
    ) }}',
    post_hook='{{ remember_periods() }}',
) }}
{{- read_by_hooks('int_pipeline_items') }}
{%- set steps = ['calls', 'proposals', 'agreements', 'lists_out', 'first_sales'] %}

with

items as (
    select
        source_system,
        project_id,
        rep_id,
        cohort_team_id as team_id,
        cohort_month as month,
        steps_reached
    from {{ ref('fct_pipeline_items') }}
    where
        excluded_reason is null
        and cohort_month is not null
        and {{ month_is_to_build('cohort_month') }}
),

subject_periods as (
    select * from {{ ref('int_subject_periods') }}
    where period_type = 'month' and {{ month_is_to_build('period_start') }}
),

subjects as (
    select * from {{ ref('int_subjects') }}
),

parts as (
    select
        source_system,
        project_id,
        {{ subject_columns() | indent(8) }},
        {%- for step in steps %}
        sum({{ flag('steps_reached >= ' ~ loop.index) }}) as {{ step }},
        {%- endfor %}
        month
    from items
    {{ group_by_subject(['month']) | indent(4) }}
    union all
    select
        source_system,
        project_id,
        subject_type,
        subject_id,
        {%- for step in steps %}
        0 as {{ step }},
        {%- endfor %}
        period_start as month
    from subject_periods
),

summed as (
    select
        source_system,
        project_id,
        subject_type,
        subject_id,
        {%- for step in steps %}
        cast(sum({{ step }}) as bigint) as {{ step }},
        {%- endfor %}
        month
    from parts
    group by
        source_system,
        project_id,
        subject_type,
        subject_id,
        month
),

final as (
    select
        summed.source_system,
        summed.project_id,
        summed.subject_type,
        summed.subject_id,
        coalesce(subjects.subject_name, summed.subject_id) as subject_name,
        summed.month,
        {%- for step in steps %}
        summed.{{ step }},
        {%- endfor %}
        {{ pct('summed.proposals', 'summed.calls') }} as call_to_proposal_pct,
        {{ pct('summed.agreements', 'summed.proposals') }} as proposal_to_agreement_pct,
        {{ pct('summed.lists_out', 'summed.agreements') }} as agreement_to_list_pct,
        {{ pct('summed.first_sales', 'summed.lists_out') }} as list_to_first_sale_pct,
        {{ pct('summed.first_sales', 'summed.calls') }} as call_to_first_sale_pct,
        {{ built_at() }} as updated_at
    from summed
    left join subjects
        on
            {{ same_subject('summed', 'subjects') | indent(12) }}
)

select * from final
