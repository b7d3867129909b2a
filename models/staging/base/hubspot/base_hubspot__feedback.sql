with

submissions as (
    select * from {{ source('raw_hubspot', 'feedback_submissions') }}
),

scored_submissions as (
    select
        project_id,
        submission_id,
        ticket_id,
        contact_id,
        survey_id,
        survey_name,
        survey_channel,
        response_group,
        sentiment,
        lower(survey_type) as survey_type,
        {{ number_of('value') }} as score,
        custom_fields,
        is_gone,
        coalesce(submitted_at, created_at, modified_at, fetched_at) as responded_at
    from submissions
),

final as (
    select
        cast('hubspot' as {{ type_label() }}) as source_system,
        project_id,
        submission_id,
        ticket_id,
        contact_id,
        survey_id,
        survey_name,
        survey_channel,
        response_group,
        sentiment,
        survey_type,
        -- Scales differ from survey to survey, and HubSpot does not tell them.
        case
            when coalesce(survey_type, '') not in ('nps', 'csat') then 'another kind of survey'
            when score is null or score != floor(score) then 'no whole number'
            when survey_type = 'nps' and score not between 0 and 10 then 'outside the scale'
            when survey_type = 'csat' and score not between 1 and 5 then 'outside the scale'
        end as left_out_reason,
        score,
        custom_fields,
        is_gone,
        responded_at
    from scored_submissions
)

select * from final
