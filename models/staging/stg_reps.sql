with

records as (
    {{ records_of_active_projects([ref('base_files__reps')]) }}
),

final as (
    select
        {{ entity_key('rep_id') }} as rep_key,
        records.source_system,
        records.project_id,
        records.rep_id,
        coalesce(records.name, records.rep_id) as rep_name,
        coalesce(records.team_id, 'unassigned') as team_id,
        coalesce(records.is_deleted, false) as is_deleted,
        records.timezone,
        records.active_from,
        records.active_to,
        records.record_origin
    from records
)

select * from final
