-- Scores lie between 0 and 100, and the status is the one that the thresholds give.
with

expected as (
    select
        scores.facility_id,
        scores.month,
        scores.overall_health_score,
        scores.health_status,
        (
            select thresholds.health_status
            from {{ ref('health_thresholds') }} as thresholds
            where thresholds.min_score <= scores.overall_health_score
            order by thresholds.min_score desc
            limit 1
        ) as expected_status
    from {{ ref('health_scores') }} as scores
)

select *
from expected
where
    overall_health_score is null
    or overall_health_score not between 0 and 100
    or health_status is distinct from expected_status
