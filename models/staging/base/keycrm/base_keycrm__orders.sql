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
        manager_id,
        buyer_id,
        payment_status,
        utm_source,
        utm_medium,
        utm_campaign,
        utm_term,
        utm_content,
        grand_total,
        total_discount,
        shipping_price,
        is_gone,
        created_at,
        ordered_at,
        updated_at,
        status_changed_at,
        closed_at,
        gone_seen_at,
        fetched_at
    from source
)

select * from final
