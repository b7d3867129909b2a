with

records as (
    {{ records_of_active_projects([
        ref('base_receiver__stage_events'),
        ref('base_pipedrive__stage_events'),
        ref('base_hubspot__stage_events'),
        ref('base_salesforce__stage_events'),
        ref('base_keycrm__stage_events'),
        ref('base_files__stage_events'),
    ]) }}
),

entries as (
    select
        source_system,
        project_id,
        entity_type,
        entity_id,
        pipeline_id,
        stage_id,
        stage_group_id,
        previous_stage_id,
        delivery_id,
        sequence as source_sequence,
        -- Pipedrive's history counts whole seconds; its webhooks may have fractions of them.
        case
            when source_system = 'pipedrive' then {{ dbt.date_trunc('second', 'entered_at') }}
            else entered_at
        end as entered_at,
        entity_created_at,
        ingested_at,
        record_origin
    from records
),

-- The same entry may be told of several times. What a webhook said at the time counts before what
-- the CRM says of its past, and that before a file; what is missing there is taken from the others.
-- So the CRM's history, which comes later, adds to a row and changes nothing of it. The keys stand
-- in the order in which visits are made of the entries: these need not be sorted again.
merged_entries as (
    select
        source_system,
        project_id,
        entity_type,
        entity_id,
        coalesce(pipeline_id, max(pipeline_id) over same_entry) as pipeline_id,
        stage_id,
        coalesce(stage_group_id, max(stage_group_id) over same_entry) as stage_group_id,
        coalesce(previous_stage_id, max(previous_stage_id) over same_entry) as previous_stage_id,
        delivery_id,
        coalesce(source_sequence, max(source_sequence) over same_entry) as source_sequence,
        entered_at,
        coalesce(entity_created_at, max(entity_created_at) over same_entry) as entity_created_at,
        min(ingested_at) over same_entry as ingested_at,
        record_origin,
        row_number() over same_entry = 1 as is_kept
    from entries
    window same_entry as (
        partition by source_system, project_id, entity_type, entity_id, entered_at, stage_id
        order by
            case
                when delivery_id is not null then 1 when ingested_at is not null then 2 else 3
            end,
            ingested_at,
            delivery_id,
            record_origin
        rows between unbounded preceding and unbounded following
    )
),

final as (
    select
        source_system,
        project_id,
        entity_type,
        entity_id,
        pipeline_id,
        stage_id,
        stage_group_id,
        previous_stage_id,
        delivery_id,
        source_sequence,
        entered_at,
        entity_created_at,
        ingested_at,
        record_origin
    from merged_entries
    where is_kept
)

select * from final
