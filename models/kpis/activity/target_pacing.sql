with

attainment as (
    select * from {{ ref('kpi_target_attainment') }}
    where is_running = 1
),

work_days as (
    select * from {{ ref('int_work_days') }}
),

forecasts as (
    select * from {{ ref('sales_forecast') }}
),

roster as (
    select * from {{ ref('int_roster') }}
),

open_deals as (
    select * from {{ ref('fct_pipeline_scenarios') }}
    where scenario = 'weighted' and excluded_reason is null and stage != 'won'
),

periods as (
    {%- for period, start in [('week', 'week_start'), ('month', 'month')] %}
    select distinct
        source_system,
        project_id,
        as_of_date,
        cast('{{ period }}' as {{ type_label() }}) as period_type,
        {{ start }} as period_start,
        working_days_in_{{ period }} as working_days,
        working_days_gone_in_{{ period }} as working_days_gone
    from work_days
    where date_day = as_of_date
    {%- if not loop.last %}
    union all
    {%- endif %}
    {%- endfor %}
),

placed_deals as (
    select
        open_deals.source_system,
        open_deals.project_id,
        open_deals.rep_id,
        coalesce(roster.team_id, 'unassigned') as team_id,
        open_deals.currency,
        open_deals.weighted_amount
    from open_deals
    inner join periods
        on
            open_deals.source_system = periods.source_system
            and open_deals.project_id = periods.project_id
            and periods.period_type = 'month'
    left join roster
        on
            {{ in_team_on('open_deals', 'periods.as_of_date') | indent(12) }}
),

pipeline as (
    select
        source_system,
        project_id,
        {{ subject_columns() | indent(8) }},
        currency,
        sum(weighted_amount) as open_weighted_value
    from placed_deals
    {{ group_by_subject(['currency']) | indent(4) }}
),

compared as (
    select
        attainment.*,
        periods.working_days,
        periods.working_days_gone,
        greatest(attainment.target - attainment.actual, 0) as missing,
        case
            when attainment.kpi = 'revenue' then coalesce(pipeline.open_weighted_value, 0)
        end as open_weighted_value,
        case
            when attainment.period_type = 'month' then forecasts.expected - forecasts.so_far
        end as expected_more
    from attainment
    inner join periods
        on
            attainment.source_system = periods.source_system
            and attainment.project_id = periods.project_id
            and attainment.period_type = periods.period_type
    left join pipeline
        on
            {{ same_subject('attainment', 'pipeline') | indent(12) }}
            and attainment.kpi = 'revenue'
            and attainment.currency = pipeline.currency
    left join forecasts
        on
            {{ same_subject('attainment', 'forecasts') | indent(12) }}
            and attainment.kpi = forecasts.kpi
            and attainment.currency = forecasts.currency
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
        period_type,
        period_start,
        working_days,
        working_days_gone,
        actual,
        target,
        target_to_date,
        {{ pct('actual', 'target_to_date') }} as to_date_pct,
        cast(missing as {{ type_money() }}) as missing,
        cast({{ ratio('actual * working_days', 'working_days_gone', 4) }} as {{ type_money() }})
            as projected,
        cast(open_weighted_value as {{ type_money() }}) as open_weighted_value,
        {{ ratio('open_weighted_value', 'missing') }} as coverage,
        cast(expected_more as {{ type_money() }}) as expected_more,
        {{ ratio('expected_more', 'missing') }} as forecast_coverage,
        {{ built_at() }} as updated_at
    from compared
)

select * from final
