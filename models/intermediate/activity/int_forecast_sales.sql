with

sales as (
    select * from {{ ref('fct_sales') }}
    where excluded_reason is null
),

items as (
    select * from {{ ref('fct_pipeline_items') }}
    where excluded_reason is null
),

projects as (
    select * from {{ ref('stg_projects') }}
),

dated as (
    select
        sales.source_system,
        sales.project_id,
        sales.rep_id,
        sales.currency,
        {{ local_day('sales.sold_at', 'projects.timezone') }} as sold_day,
        case
            when items.partner_list_sent_at <= sales.sold_at
                then {{ local_day('items.partner_list_sent_at', 'projects.timezone') }}
        end as list_day,
        sales.amount
    from sales
    inner join projects
        on
            sales.source_system = projects.source_system
            and sales.project_id = projects.project_id
    left join items on sales.pipeline_item_key = items.pipeline_item_key
),

final as (
    select
        source_system,
        project_id,
        rep_id,
        currency,
        sold_day,
        list_day,
        count(*) as sales,
        sum(amount) as revenue,
        sum(amount * amount) as squared_revenue
    from dated
    group by
        source_system,
        project_id,
        rep_id,
        currency,
        sold_day,
        list_day
)

select * from final
