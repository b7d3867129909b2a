{%- set fields = ['facility_id', 'rep_id', 'lead_id'] %}
{%- set of_calls = {
    'hs_activity_type': 'activity_type',
    'hs_call_direction': 'direction',
    'hs_call_disposition': 'disposition',
    'hs_call_status': 'status',
    'hs_call_title': 'title',
    'hubspot_owner_id': 'owner_id',
} %}
{%- set of_meetings = {
    'hs_meeting_location': 'location',
    'hs_meeting_outcome': 'outcome',
    'hs_meeting_title': 'title',
    'hubspot_owner_id': 'owner_id',
} %}

with

calls as (
    select * from {{ source('raw_hubspot', 'calls') }}
),

meetings as (
    select * from {{ source('raw_hubspot', 'meetings') }}
),

associations as (
    select * from {{ source('raw_hubspot', 'associations') }}
    where to_type = 'deals'
),

field_map as (
    select * from {{ ref('base_settings__field_map') }}
    where source_system = 'hubspot' and entity = 'activities'
),

-- A call without a state was written down after it was made.
activities as (
    select
        calls.project_id,
        'calls' as kind,
        calls.call_id as object_id,
        {{ dbt.concat(["'call '", 'calls.call_id']) }} as activity_id,
        'call' as activity_type,
        calls.owner_id,
        {%- for field in fields %}
        {{ mapped_field('calls', 'field_map.' ~ field, of_calls) }} as {{ field }},
        {%- endfor %}
        'phone' as channel,
        calls.called_at as scheduled_at,
        case
            when coalesce(upper(calls.status), 'COMPLETED') = 'COMPLETED' then calls.called_at
        end as completed_at,
        lower(calls.status) as outcome,
        calls.modified_at,
        calls.is_gone
    from calls
    left join field_map on calls.project_id = field_map.project_id
    union all
    select
        meetings.project_id,
        'meetings' as kind,
        meetings.meeting_id as object_id,
        {{ dbt.concat(["'meeting '", 'meetings.meeting_id']) }} as activity_id,
        'meeting' as activity_type,
        meetings.owner_id,
        {%- for field in fields %}
        {{ mapped_field('meetings', 'field_map.' ~ field, of_meetings) }} as {{ field }},
        {%- endfor %}
        'meeting' as channel,
        coalesce(meetings.started_at, meetings.planned_at) as scheduled_at,
        case
            when upper(meetings.outcome) = 'COMPLETED'
                then coalesce(meetings.ended_at, meetings.started_at, meetings.planned_at)
        end as completed_at,
        lower(meetings.outcome) as outcome,
        meetings.modified_at,
        meetings.is_gone
    from meetings
    left join field_map on meetings.project_id = field_map.project_id
),

final as (
    select
        cast('hubspot' as {{ type_label() }}) as source_system,
        activities.project_id,
        activities.activity_id,
        cast(activities.activity_type as {{ type_label() }}) as activity_type,
        coalesce(activities.rep_id, activities.owner_id) as rep_id,
        activities.lead_id,
        associations.to_id as opportunity_id,
        activities.facility_id,
        cast(activities.channel as {{ type_label() }}) as channel,
        activities.scheduled_at,
        activities.completed_at,
        activities.outcome,
        cast(null as {{ type_label() }}) as item_id,
        cast(null as {{ type_instant() }}) as created_at,
        activities.modified_at as updated_at,
        activities.is_gone as is_deleted,
        activities.activity_id as record_origin
    from activities
    left join associations
        on
            activities.project_id = associations.project_id
            and activities.object_id = associations.from_id
            and activities.kind = associations.from_type
)

select * from final
