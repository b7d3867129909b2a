with

source as (
    select * from {{ source('raw_pipedrive', 'deal_changes') }}
),

final as (
    select
        cast('pipedrive' as {{ type_label() }}) as source_system,
        project_id,
        deal_id,
        change_id,
        user_id,
        field_key,
        old_value,
        new_value,
        old_label,
        new_label,
        change_source,
        changed_at,
        fetched_at
    from source
)

select * from final
