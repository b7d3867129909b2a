{{ config(materialized='table', post_hook='{{ gather_statistics(this) }}') }}

{#- As far back as forecasts that are made again may read. -#}
{%- set days_read = var('backtest_window_days') + 31 + forecast_learned_days() -%}

with

sales as (
    select * from {{ ref('fct_sales') }}
    where
        excluded_reason is null
        and amount is not null
        and {{ day_of_date('sold_date') }} + {{ days_read }}
        >= {{ local_day(as_of(), "'UTC'") }} - 1
),

items as (
    select * from {{ ref('int_pipeline_items') }}
    where excluded_reason is null
),

dated as (
    select
        sales.source_system,
        sales.project_id,
        sales.rep_id,
        sales.currency,
        sales.item_key,
        {{ day_of_date('sales.sold_date') }} as sold_day,
        case
            when items.list_out_date <= sales.sold_date
                then {{ day_of_date('items.list_out_date') }}
        end as list_out_day,
        sales.is_sale,
        sales.amount
    from sales
    left join items on sales.item_key = items.item_key
),

final as (
    select
        source_system,
        project_id,
        rep_id,
        currency,
        item_key,
        sold_day,
        list_out_day,
        sum(is_sale) as sales,
        sum(amount) as revenue,
        sum(amount * amount) as squared_revenue
    from dated
    group by
        source_system,
        project_id,
        rep_id,
        currency,
        item_key,
        sold_day,
        list_out_day
)

select * from final
