with

responses as (
    select * from {{ ref('stg_satisfaction') }}
),

scales as (
    select * from {{ ref('survey_scales') }}
),

final as (
    select
        responses.response_key,
        responses.source_system,
        responses.project_id,
        responses.response_id,
        responses.ticket_key,
        responses.facility_id,
        responses.survey_type,
        case
            when responses.is_deleted then 'deleted'
            when responses.responded_at > {{ as_of() }} then 'answered after as_of'
            when responses.score not between scales.min_score and scales.max_score
                then 'score outside the scale'
        end as excluded_reason,
        responses.record_origin,
        responses.score,
        {{ flag('responses.score >= scales.promoter_min_score') }} as is_promoter,
        {{ flag('responses.score <= scales.detractor_max_score') }} as is_detractor,
        {{ ratio(
            '(responses.score - scales.min_score)', '(scales.max_score - scales.min_score)', 6
        ) }} as scaled_score,
        responses.responded_month as month,
        responses.responded_at,
        {{ built_at() }} as updated_at
    from responses
    inner join scales on responses.survey_type = scales.survey_type
)

select * from final
