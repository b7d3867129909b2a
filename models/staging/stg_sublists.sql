with

records as (
    {{ records_of_active_projects([ref('base_files__sublists')]) }}
),

final as (
    select
        {{ entity_key('sublist_id') }} as sublist_key,
        records.source_system,
        records.project_id,
        records.sublist_id,
        {{ entity_key('item_id') }} as item_key,
        records.name as sublist_name,
        coalesce(records.is_deleted, false) as is_deleted,
        records.timezone,
        records.created_at,
        records.record_origin
    from records
)

select * from final
