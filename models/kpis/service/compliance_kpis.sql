with

applications as (
    select * from {{ ref('fct_applications') }}
    where excluded_reason is null
),

final as (
    select
        facility_id,
        month,
        count(*) as applications,
        sum(is_reviewed) as reviewed_applications,
        sum(is_compliant) as compliant_applications,
        sum(timeliness_judged) as timeliness_judged,
        sum(is_on_time) as on_time_applications,
        sum(has_impossible_duration) as impossible_durations,
        {{ pct('sum(is_compliant)', 'sum(is_reviewed)') }} as compliance_rate_pct,
        {{ pct('sum(is_on_time)', 'sum(timeliness_judged)') }} as on_time_rate_pct,
        count(review_seconds) as review_times,
        {{ mean_seconds('review_seconds') }} as avg_review_seconds,
        {{ percentile_seconds(0.5, 'review_seconds') }} as p50_review_seconds,
        {{ percentile_seconds(0.85, 'review_seconds') }} as p85_review_seconds,
        {{ percentile_seconds(0.95, 'review_seconds') }} as p95_review_seconds,
        {{ built_at() }} as updated_at
    from applications
    group by
        facility_id,
        month
)

select * from final
