{%- set standard = {'OwnerId': 'owner_id', 'WhatId': 'what_id', 'WhoId': 'who_id'} %}

with

tasks as (
    select * from {{ source('raw_salesforce', 'tasks') }}
),

events as (
    select * from {{ source('raw_salesforce', 'events') }}
),

field_map as (
    select * from {{ ref('base_settings__field_map') }}
),

-- A task without a kind is a note of what to do, no contact with anybody. What an event that
-- repeats begins with is the rule, not a meeting.
activities as (
    select
        project_id,
        task_id as activity_id,
        case
            when lower(coalesce(task_subtype, 'task')) != 'task' then lower(task_subtype)
            else lower(task_type)
        end as kind,
        custom_fields,
        owner_id,
        what_id,
        who_id,
        {{ start_of_day('activity_date') }} as scheduled_at,
        case
            when is_closed
                then
                    coalesce(
                        completed_at,
                        case
                            when {{ start_of_day('activity_date') }} < created_at then created_at
                            else {{ start_of_day('activity_date') }}
                        end
                    )
        end as completed_at,
        coalesce(call_disposition, status) as outcome,
        created_at,
        modified_at,
        coalesce(is_deleted, false) or is_gone as is_deleted,
        {{ dbt.concat(["'task '", 'task_id']) }} as record_origin
    from tasks
    union all
    select
        project_id,
        event_id as activity_id,
        'meeting' as kind,
        custom_fields,
        owner_id,
        what_id,
        who_id,
        starts_at as scheduled_at,
        ends_at as completed_at,
        cast(null as {{ type_label() }}) as outcome,
        created_at,
        modified_at,
        coalesce(is_deleted, false) or is_gone as is_deleted,
        {{ dbt.concat(["'event '", 'event_id']) }} as record_origin
    from events
    where not coalesce(is_recurrence, false)
),

final as (
    select
        cast('salesforce' as {{ type_label() }}) as source_system,
        activities.project_id,
        activities.activity_id,
        case when activities.kind = 'listemail' then 'email' else activities.kind end
            as activity_type,
        coalesce(
            {{ salesforce_field('activities', 'field_map.rep_id', standard) }}, activities.owner_id
        ) as rep_id,
        coalesce(
            {{ salesforce_field('activities', 'field_map.lead_id', standard) }},
            case when activities.who_id like '00Q%' then activities.who_id end
        ) as lead_id,
        case when activities.what_id like '006%' then activities.what_id end as opportunity_id,
        {{ salesforce_field('activities', 'field_map.facility_id', standard) }} as facility_id,
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
    left join field_map
        on
            field_map.source_system = 'salesforce'
            and field_map.entity = 'activities'
            and activities.project_id = field_map.project_id
    where activities.kind in ('call', 'email', 'listemail', 'meeting')
)

select * from final
