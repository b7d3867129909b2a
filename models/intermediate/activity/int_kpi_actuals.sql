{{ config(
    materialized=flow_materialized(),
    incremental_strategy='by_period_type',
    on_schema_change='append_new_columns',
    pre_hook='{{ begin_periods(
        parts_of_periods(
            ["week", "month"], days=[item_days(), sale_days(), call_days()], periods=[item_teams()]
        )
    ) }}',
    post_hook='{{ remember_periods() }}',
) }}
{{- read_by_hooks('int_pipeline_items') }}

with

steps as (
    select * from {{ ref('fct_item_steps') }}
    where excluded_reason is null and {{ week_or_month_is_to_build('step_date') }}
),

sales as (
    select * from {{ ref('fct_sales') }}
    where excluded_reason is null and {{ week_or_month_is_to_build('sold_date') }}
),

call_volume as (
    select * from {{ ref('call_volume') }}
    where
        period_type = 'day'
        and conducted > 0
        and {{ week_or_month_is_to_build('period_start') }}
),

things as (
    select
        source_system,
        project_id,
        rep_id,
        team_id,
        case step
            when 'proposal' then 'proposals'
            when 'agreement' then 'agreements'
            when 'list_out' then 'lists_out'
        end as kpi,
        cast('XXX' as {{ type_label() }}) as currency,
        step_date as thing_date,
        cast(1 as {{ type_money() }}) as actual
    from steps
    where step in ('proposal', 'agreement', 'list_out')
    union all
    select
        source_system,
        project_id,
        rep_id,
        team_id,
        'sales' as kpi,
        'XXX' as currency,
        sold_date as thing_date,
        1 as actual
    from sales
    where is_sale = 1
    union all
    select
        source_system,
        project_id,
        rep_id,
        team_id,
        'revenue' as kpi,
        currency,
        sold_date as thing_date,
        amount as actual
    from sales
    where amount is not null
),

subject_days as (
    select
        source_system,
        project_id,
        {{ subject_columns() | indent(8) }},
        kpi,
        currency,
        thing_date,
        sum(actual) as actual
    from things
    {{ group_by_subject(['kpi', 'currency', 'thing_date']) | indent(4) }}
    union all
    select
        source_system,
        project_id,
        subject_type,
        subject_id,
        'calls' as kpi,
        'XXX' as currency,
        period_start as thing_date,
        conducted as actual
    from call_volume
),

final as (
    {%- for period, start in {
        'week': week_of_date('thing_date'),
        'month': month_of_date('thing_date'),
    }.items() %}
    select
        source_system,
        project_id,
        subject_type,
        subject_id,
        kpi,
        currency,
        cast('{{ period }}' as {{ type_label() }}) as period_type,
        {{ start }} as period_start,
        cast(sum(actual) as {{ type_money() }}) as actual
    from subject_days
    where {{ period_is_to_build("'" ~ period ~ "'", start) }}
    group by
        source_system,
        project_id,
        subject_type,
        subject_id,
        kpi,
        currency,
        {{ start }}
    {%- if not loop.last %}
    union all
    {%- endif %}
    {%- endfor %}
)

select * from final
