with

source as (
    select * from {{ source('raw_keycrm', 'orders') }}
),

final as (
    select
        cast('keycrm' as {{ type_label() }}) as source_system,
        project_id,
        order_id,
        status_id,
        status_group_id,
        source_id,
        grand_total,
        is_gone,
        created_at,
        ordered_at,
        updated_at,
        closed_at,
        fetched_at
    from source
)

select * from final
