{%- set fields = ['facility_id', 'rep_id', 'lead_id'] %}
{%- set of_tasks = {
    'CallDisposition': 'call_disposition',
    'OwnerId': 'owner_id',
    'Status': 'status',
    'Subject': 'subject',
    'TaskSubtype': 'task_subtype',
    'Type': 'task_type',
    'WhatId': 'what_id',
    'WhoId': 'who_id',
} %}
{%- set of_events = {
    'OwnerId': 'owner_id',
    'Subject': 'subject',
    'Type': 'event_type',
    'WhatId': 'what_id',
    'WhoId': 'who_id',
} %}

with

tasks as (
    select * from {{ source('raw_salesforce', 'tasks') }}
),

events as (
    select * from {{ source('raw_salesforce', 'events') }}
),

field_map as (
    select * from {{ ref('base_settings__field_map') }}
    where source_system = 'salesforce' and entity = 'activities'
),

-- A task without a kind is a note of what to do, no contact with anybody. What an event that
-- repeats begins with is the rule, not a meeting.
activities as (
    select
        tasks.project_id,
        tasks.task_id as activity_id,
        case
            when lower(coalesce(tasks.task_subtype, 'task')) != 'task'
                then lower(tasks.task_subtype)
            else lower(tasks.task_type)
        end as kind,
        {%- for field in fields %}
        {{ salesforce_field('tasks', 'field_map.' ~ field, of_tasks) }} as {{ field }},
        {%- endfor %}
        tasks.owner_id,
        tasks.what_id,
        tasks.who_id,
        {{ start_of_day('tasks.activity_date') }} as scheduled_at,
        case
            when tasks.is_closed
                then
                    coalesce(
                        tasks.completed_at,
                        case
                            when {{ start_of_day('tasks.activity_date') }} < tasks.created_at
                                then tasks.created_at
                            else {{ start_of_day('tasks.activity_date') }}
                        end
                    )
        end as completed_at,
        coalesce(tasks.call_disposition, tasks.status) as outcome,
        tasks.created_at,
        tasks.modified_at,
        coalesce(tasks.is_deleted, false) or tasks.is_gone as is_deleted,
        {{ dbt.concat(["'task '", 'tasks.task_id']) }} as record_origin
    from tasks
    left join field_map on tasks.project_id = field_map.project_id
    union all
    select
        events.project_id,
        events.event_id as activity_id,
        'meeting' as kind,
        {%- for field in fields %}
        {{ salesforce_field('events', 'field_map.' ~ field, of_events) }} as {{ field }},
        {%- endfor %}
        events.owner_id,
        events.what_id,
        events.who_id,
        events.starts_at as scheduled_at,
        events.ends_at as completed_at,
        cast(null as {{ type_label() }}) as outcome,
        events.created_at,
        events.modified_at,
        coalesce(events.is_deleted, false) or events.is_gone as is_deleted,
        {{ dbt.concat(["'event '", 'events.event_id']) }} as record_origin
    from events
    left join field_map on events.project_id = field_map.project_id
    where not coalesce(events.is_recurrence, false)
),

final as (
    select
        cast('salesforce' as {{ type_label() }}) as source_system,
        activities.project_id,
        activities.activity_id,
        case when activities.kind = 'listemail' then 'email' else activities.kind end
            as activity_type,
        coalesce(activities.rep_id, activities.owner_id) as rep_id,
        coalesce(
            activities.lead_id,
            case when activities.who_id like '00Q%' then activities.who_id end
        ) as lead_id,
        case when activities.what_id like '006%' then activities.what_id end as opportunity_id,
        activities.facility_id,
        case activities.kind
            when 'call' then 'phone'
            when 'listemail' then 'email'
            else activities.kind
        end as channel,
        activities.scheduled_at,
        activities.completed_at,
        activities.outcome,
        cast(null as {{ type_label() }}) as item_id,
        activities.created_at,
        activities.modified_at as updated_at,
        activities.is_deleted,
        activities.record_origin
    from activities
    where activities.kind in ('call', 'email', 'listemail', 'meeting')
)

select * from final
