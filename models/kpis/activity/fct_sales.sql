with

sales as (
    select * from {{ ref('stg_sales') }}
),

roster as (
    select * from {{ ref('int_roster') }}
),

dated as (
    select
        sales.*,
        {{ date_of_day(local_day('sold_at', 'timezone')) }} as sold_date
    from sales
),

final as (
    select
        dated.sale_key,
        dated.source_system,
        dated.project_id,
        dated.sale_id,
        dated.item_key,
        dated.lead_key,
        dated.facility_id,
        dated.rep_id,
        coalesce(roster.team_id, 'unassigned') as team_id,
        dated.currency,
        case
            when dated.is_deleted then 'deleted'
            when dated.sold_at > {{ as_of() }} then 'sold after as_of'
        end as excluded_reason,
        dated.record_origin,
        {{ flag('dated.amount >= 0') }} as is_sale,
        cast(dated.amount as {{ type_money() }}) as amount,
        dated.sold_date,
        {{ month_of_date('dated.sold_date') }} as month,
        dated.sold_at,
        {{ built_at() }} as updated_at
    from dated
    left join roster
        on
            {{ in_team_on('dated', 'dated.sold_date') | indent(12) }}
)

select * from final
