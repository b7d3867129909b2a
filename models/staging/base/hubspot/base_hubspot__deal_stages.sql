with

source as (
    select * from {{ source('raw_hubspot', 'deal_stages') }}
),

final as (
    select
        cast('hubspot' as {{ type_label() }}) as source_system,
        project_id,
        stage_id,
        pipeline_id,
        label as stage_name,
        -- What a stage is called says nothing of it.
        case
            when is_closed and probability = 1 then 'won'
            when is_closed and probability = 0 then 'lost'
            else 'open'
        end as status,
        probability,
        position,
        is_closed,
        not is_gone as is_active
    from source
)

select * from final
