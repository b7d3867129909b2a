with

source as (
    select * from {{ source('raw_keycrm', 'order_changes') }}
),

final as (
    select
        change_id,
        cast('keycrm' as {{ type_label() }}) as source_system,
        project_id,
        order_id,
        field,
        old_value,
        new_value,
        stage_group_id,
        is_dated,
        changed_at,
        fetched_at
    from source
)

select * from final
