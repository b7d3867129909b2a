{{ config(materialized='view') }}

with

activities as (
    select * from {{ ref('stg_activities') }}
),

roster as (
    select * from {{ ref('int_roster') }}
),

final as (
    select
        activities.activity_key,
        activities.source_system,
        activities.project_id,
        activities.activity_id,
        activities.lead_key,
        activities.opportunity_key,
        activities.item_key,
        activities.facility_id,
        activities.rep_id,
        coalesce(roster.team_id, 'unassigned') as team_id,
        activities.activity_type,
        activities.channel,
        activities.outcome,
        case
            when activities.is_deleted then 'deleted'
            when activities.created_at > {{ as_of() }} then 'created after as_of'
            when coalesce(activities.scheduled_at, activities.completed_at) is null
                then 'without a date'
        end as excluded_reason,
        activities.record_origin,
        {{ flag("activities.activity_type = 'call'") }} as is_call,
        {{ flag('activities.scheduled_at <= ' ~ as_of()) }} as is_due,
        {{ flag('activities.completed_at <= ' ~ as_of()) }} as is_completed,
        activities.scheduled_date,
        activities.scheduled_hour,
        case when activities.completed_at <= {{ as_of() }} then activities.completed_date end
            as completed_date,
        case when activities.completed_at <= {{ as_of() }} then activities.completed_hour end
            as completed_hour,
        activities.created_at,
        activities.scheduled_at,
        case when activities.completed_at <= {{ as_of() }} then activities.completed_at end
            as completed_at,
        {{ built_at() }} as updated_at
    from activities
    left join roster
        on
            {{ in_team_on(
                'activities', 'coalesce(activities.scheduled_date, activities.completed_date)'
            ) | indent(12) }}
)

select * from final
