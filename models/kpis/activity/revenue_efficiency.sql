{{ config(
    materialized=flow_materialized(),
    incremental_strategy='by_month',
    on_schema_change='append_new_columns',
    pre_hook='{{ begin_periods(
        parts_of_periods(
            ["month"],
            days=[sale_days(), call_days()],
            periods=[subject_periods(), contents_of_periods(ref("list_out_kpis"))],
        ),
        name_parts() ~ " union all " ~ currency_parts(),
    ) }}',
    post_hook='{{ remember_periods() }}',
) }}

with

sales as (
    select * from {{ ref('fct_sales') }}
    where excluded_reason is null and {{ month_is_to_build('sold_date') }}
),

call_volume as (
    select * from {{ ref('call_volume') }}
    where period_type = 'day' and {{ month_is_to_build('period_start') }}
),

list_outs as (
    select * from {{ ref('list_out_kpis') }}
    where {{ month_is_to_build('month') }}
),

subject_periods as (
    select * from {{ ref('int_subject_periods') }}
    where period_type = 'month' and {{ month_is_to_build('period_start') }}
),

work_days as (
    select * from {{ ref('int_work_days') }}
),

subjects as (
    select * from {{ ref('int_subjects') }}
),

currencies as (
    select distinct
        source_system,
        project_id,
        project_currency
    from work_days
),

sold as (
    select
        source_system,
        project_id,
        {{ subject_columns() | indent(8) }},
        month,
        currency,
        sum(is_sale) as sales,
        sum(amount) as revenue
    from sales
    {{ group_by_subject(['month', 'currency']) | indent(4) }}
),

calls as (
    select
        source_system,
        project_id,
        subject_type,
        subject_id,
        {{ month_of_date('period_start') }} as month,
        sum(conducted) as calls
    from call_volume
    where conducted > 0
    group by
        source_system,
        project_id,
        subject_type,
        subject_id,
        {{ month_of_date('period_start') }}
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
    from calls
    union
    select
        source_system,
        project_id,
        subject_type,
        subject_id,
        month
    from list_outs
    where lists_out > 0
    union
    select
        source_system,
        project_id,
        subject_type,
        subject_id,
        month
    from sold
),

final as (
    select
        months.source_system,
        months.project_id,
        months.subject_type,
        months.subject_id,
        coalesce(subjects.subject_name, months.subject_id) as subject_name,
        months.month,
        coalesce(sold.currency, currencies.project_currency, 'XXX') as currency,
        coalesce(sold.sales, 0) as sales,
        cast(coalesce(sold.revenue, 0) as {{ type_money() }}) as revenue,
        cast(coalesce(calls.calls, 0) as bigint) as calls,
        coalesce(list_outs.lists_out, 0) as lists_out,
        coalesce(subject_periods.active_reps, 0) as active_reps,
        cast({{ ratio('coalesce(sold.revenue, 0)', 'calls.calls', 4) }} as {{ type_money() }})
            as revenue_per_call,
        cast(
            {{ ratio('coalesce(sold.revenue, 0)', 'list_outs.lists_out', 4) }} as {{ type_money() }}
        ) as revenue_per_list,
        cast(
            {{ ratio('coalesce(sold.revenue, 0)', 'subject_periods.active_reps', 4) }}
            as {{ type_money() }}
        ) as revenue_per_rep,
        cast({{ ratio('sold.revenue', 'sold.sales', 4) }} as {{ type_money() }}) as avg_sale,
        {{ built_at() }} as updated_at
    from months
    left join sold
        on
            {{ same_subject('months', 'sold') | indent(12) }}
            and months.month = sold.month
    left join calls
        on
            {{ same_subject('months', 'calls') | indent(12) }}
            and months.month = calls.month
    left join list_outs
        on
            {{ same_subject('months', 'list_outs') | indent(12) }}
            and months.month = list_outs.month
    left join subject_periods
        on
            {{ same_subject('months', 'subject_periods') | indent(12) }}
            and months.month = subject_periods.period_start
    left join currencies
        on
            months.source_system = currencies.source_system
            and months.project_id = currencies.project_id
    left join subjects
        on
            {{ same_subject('months', 'subjects') | indent(12) }}
)

select * from final
