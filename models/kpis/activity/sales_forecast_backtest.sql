with

forecasts as (
    select * from {{ ref('int_sales_forecasts') }}
    where not is_current
),

final as (
    select
        source_system,
        project_id,
        subject_type,
        subject_id,
        subject_name,
        kpi,
        currency,
        {{ flag('from_day_on between low and high') }} as is_inside,
        cast(expected as {{ type_money() }}) as expected_more,
        cast(low as {{ type_money() }}) as low_more,
        cast(high as {{ type_money() }}) as high_more,
        cast(from_day_on as {{ type_money() }}) as actual_more,
        month,
        made_for_date,
        {{ built_at() }} as updated_at
    from forecasts
)

select * from final
