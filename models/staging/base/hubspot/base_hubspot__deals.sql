with

source as (
    select * from {{ source('raw_hubspot', 'deals') }}
),

final as (
    select
        cast('hubspot' as {{ type_label() }}) as source_system,
        project_id,
        deal_id,
        pipeline_id,
        stage_id,
        owner_id,
        team_id,
        name,
        deal_type,
        forecast_category,
        next_step,
        closed_won_reason,
        closed_lost_reason,
        amount,
        currency,
        stage_probability,
        custom_fields,
        is_closed_won,
        is_closed_lost,
        is_gone,
        -- The day on which somebody says that it began counts before that of its import.
        coalesce(created_at, added_at, modified_at, fetched_at) as created_at,
        close_at,
        modified_at,
        fetched_at
    from source
)

select * from final
