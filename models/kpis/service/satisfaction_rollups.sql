with

responses as (
    select * from {{ ref('fct_satisfaction') }}
    where excluded_reason is null
),

summed as (
    select
        facility_id,
        month,
        survey_type,
        count(*) as responses,
        sum(is_promoter) as promoters,
        sum(is_detractor) as detractors,
        {{ ratio('sum(score)', 'count(*)') }} as avg_score,
        {{ ratio('percentile_cont(0.5) within group (order by score)', '1') }} as median_score
    from responses
    group by
        facility_id,
        month,
        survey_type
),

final as (
    select
        summed.facility_id,
        summed.month,
        summed.survey_type,
        summed.responses,
        summed.promoters,
        summed.detractors,
        summed.avg_score,
        summed.median_score,
        {{ pct('summed.promoters', 'summed.responses') }} as promoter_or_satisfaction_pct,
        {{ pct('summed.detractors', 'summed.responses') }} as detractor_rate_pct,
        case
            when summed.survey_type = 'nps'
                then {{ pct('(summed.promoters - summed.detractors)', 'summed.responses') }}
        end as nps,
        summed.avg_score - month_before.avg_score as month_over_month_change,
        {{ built_at() }} as updated_at
    from summed
    left join summed as month_before
        on
            summed.facility_id = month_before.facility_id
            and summed.survey_type = month_before.survey_type
            and summed.month = {{ add_months('month_before.month', 1) }}
)

select * from final
