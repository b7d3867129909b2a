with

source as (
    select * from {{ source('raw_hubspot', 'deal_history') }}
),

final as (
    select
        cast('hubspot' as {{ type_label() }}) as source_system,
        project_id,
        deal_id,
        property,
        value,
        number,
        -- Of values of one instant the place tells the order.
        row_number() over (
            partition by project_id, deal_id, property
            order by changed_at, place, value_mark
        ) as sequence,
        instant,
        changed_at,
        fetched_at
    from source
)

select * from final
