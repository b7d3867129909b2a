{%- set standard = {
    'hs_contact_id': 'contact_id',
    'hs_response_group': 'response_group',
    'hs_sentiment': 'sentiment',
    'hs_survey_channel': 'survey_channel',
    'hs_survey_id': 'survey_id',
    'hs_survey_name': 'survey_name',
    'hs_survey_type': 'survey_type',
    'hs_ticket_id': 'ticket_id',
} %}

with

feedback as (
    select * from {{ ref('base_hubspot__feedback') }}
    where left_out_reason is null
),

field_map as (
    select * from {{ ref('base_settings__field_map') }}
    where entity = 'surveys'
),

final as (
    select
        feedback.source_system,
        feedback.project_id,
        feedback.submission_id as response_id,
        {{ mapped_field('feedback', 'field_map.facility_id', standard) }} as facility_id,
        feedback.ticket_id,
        feedback.survey_type,
        cast(feedback.score as bigint) as score,
        feedback.responded_at,
        feedback.is_gone as is_deleted,
        {{ dbt.concat(["'feedback submission '", 'feedback.submission_id']) }} as record_origin
    from feedback
    left join field_map
        on
            feedback.source_system = field_map.source_system
            and feedback.project_id = field_map.project_id
)

select * from final
