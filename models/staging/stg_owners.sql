with

records as (
    {{ records_of_active_projects([
        ref('base_hubspot__owners'),
        ref('base_pipedrive__owners'),
        ref('base_salesforce__owners'),
        ref('base_keycrm__owners'),
    ]) }}
),

final as (
    select
        records.source_system,
        records.project_id,
        records.owner_id,
        records.owner_name,
        records.is_active,
        records.record_origin
    from records
)

select * from final
