with

records as (
    {{ records_of_active_projects([ref('base_files__stage_events')]) }}
),

final as (
    select
        records.source_system,
        records.project_id,
        coalesce(records.entity_type, 'deal') as entity_type,
        records.entity_id,
        records.pipeline_id,
        records.stage_id,
        records.stage_group_id,
        records.sequence as source_sequence,
        records.entered_at,
        records.record_origin
    from records
)

select * from final
