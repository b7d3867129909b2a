{#- Days that what is usual is known from. -#}
{%- set usual_days = 30 -%}
{%- set measures = ['open_value', 'open_leads'] -%}

with

pipeline_days as (
    select * from {{ ref('sales_pipeline_daily') }}
),

moves as (
    select
        {%- for measure in measures %}
        {{ measure }} - lag({{ measure }}) over in_order as {{ measure }}_change,
        {%- endfor %}
        source_system,
        currency,
        row_number() over (partition by source_system, currency order by day desc) as days_back
    from pipeline_days
    window in_order as (partition by source_system, currency order by day)
),

final as (
    select
        {%- for measure in measures %}
        {%- set usual = 'case when days_back > 1 then ' ~ measure ~ '_change end' %}
        cast(
            max(case when days_back = 1 then {{ measure }}_change end) as {{ type_money() }}
        ) as {{ measure }}_change,
        cast(avg({{ usual }}) as {{ type_money() }}) as usual_{{ measure }}_change,
        cast(stddev_samp({{ usual }}) as {{ type_money() }}) as {{ measure }}_spread,
        {%- endfor %}
        source_system,
        currency,
        count(case when days_back > 1 then open_value_change end) as known_days
    from moves
    where days_back <= {{ usual_days }} + 1
    group by source_system, currency
)

select * from final
