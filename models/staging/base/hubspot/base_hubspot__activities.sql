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
        project_id,
        'calls' as kind,
        call_id as object_id,
        {{ dbt.concat(["'call '", 'call_id']) }} as activity_id,
        'call' as activity_type,
        owner_id,
        'phone' as channel,
        called_at as scheduled_at,
        case when coalesce(upper(status), 'COMPLETED') = 'COMPLETED' then called_at end
            as completed_at,
        lower(status) as outcome,
        modified_at,
        custom_fields,
        is_gone
    from calls
    union all
    select
        project_id,
        'meetings' as kind,
        meeting_id as object_id,
        {{ dbt.concat(["'meeting '", 'meeting_id']) }} as activity_id,
        'meeting' as activity_type,
        owner_id,
        'meeting' as channel,
        coalesce(started_at, planned_at) as scheduled_at,
        case
            when upper(outcome) = 'COMPLETED' then coalesce(ended_at, started_at, planned_at)
        end as completed_at,
        lower(outcome) as outcome,
        modified_at,
        custom_fields,
        is_gone
    from meetings
),

final as (
    select
        cast('hubspot' as {{ type_label() }}) as source_system,
        activities.project_id,
        activities.activity_id,
        cast(activities.activity_type as {{ type_label() }}) as activity_type,
        coalesce(
            {{ text_at('activities.custom_fields', 'field_map.rep_id') }}, activities.owner_id
        ) as rep_id,
        {{ text_at('activities.custom_fields', 'field_map.lead_id') }} as lead_id,
        associations.to_id as opportunity_id,
        {{ text_at('activities.custom_fields', 'field_map.facility_id') }} as facility_id,
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
    left join field_map on activities.project_id = field_map.project_id
)

select * from final
