with

pushes as (
    select * from {{ ref('close_date_pushes') }}
),

-- A deal that was pushed twice in a month is worth what it was worth the last time.
ranked as (
    select
        pushes.*,
        row_number() over (
            partition by opportunity_key, rep_id, currency, month
            order by push_number desc
        ) as place_from_end
    from pushes
),

final as (
    select
        rep_id,
        month,
        currency,
        count(*) as pushes,
        count(distinct opportunity_key) as opportunities,
        cast(coalesce(sum(case when place_from_end = 1 then amount end), 0) as {{ type_money() }})
            as pushed_value,
        cast(avg(days_pushed) as {{ type_money() }}) as avg_days_pushed,
        max(push_number) as most_pushes,
        {{ built_at() }} as updated_at
    from ranked
    group by
        rep_id,
        month,
        currency
)

select * from final
