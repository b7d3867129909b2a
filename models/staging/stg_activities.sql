with

records as (
    {{ records_of_active_projects([
        ref('base_files__activities'),
        ref('base_hubspot__activities'),
        ref('base_pipedrive__activities'),
        ref('base_salesforce__activities'),
    ]) }}
),

final as (
    select
        {{ entity_key('activity_id') }} as activity_key,
        records.source_system,
        records.project_id,
        records.activity_id,
        case
            when records.lead_id is not null then {{ entity_key('lead_id') }}
        end as lead_key,
        case
            when records.opportunity_id is not null then {{ entity_key('opportunity_id') }}
        end as opportunity_key,
        case when records.item_id is not null then {{ entity_key('item_id') }} end as item_key,
        coalesce(records.facility_id, 'unassigned') as facility_id,
        coalesce(records.rep_id, 'unassigned') as rep_id,
        records.activity_type,
        records.channel,
        records.outcome,
        coalesce(records.is_deleted, false) as is_deleted,
        records.timezone,
        {{ date_of_day(local_day('records.scheduled_at', 'records.timezone')) }} as scheduled_date,
        {{ local_hour('records.scheduled_at', 'records.timezone') }} as scheduled_hour,
        {{ date_of_day(local_day('records.completed_at', 'records.timezone')) }} as completed_date,
        {{ local_hour('records.completed_at', 'records.timezone') }} as completed_hour,
        records.scheduled_at,
        records.completed_at,
        records.created_at,
        coalesce(records.updated_at, records.created_at) as changed_at,
        records.record_origin
    from records
)

select * from final
