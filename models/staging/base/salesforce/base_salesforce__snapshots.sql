with

history as (
    select * from {{ source('raw_salesforce', 'opportunity_history') }}
),

stages as (
    select * from {{ source('raw_salesforce', 'stages') }}
),

final as (
    select
        cast('salesforce' as {{ type_label() }}) as source_system,
        history.project_id,
        history.opportunity_id,
        history.history_id,
        history.stage_name,
        case
            when stages.is_won then 'won'
            when stages.is_closed then 'lost'
            when not stages.is_closed then 'open'
        end as status,
        history.currency,
        history.amount,
        history.probability * 0.01 as win_probability,
        history.close_date,
        -- Instants are whole seconds; ids are given in order.
        row_number() over (
            partition by history.project_id, history.opportunity_id
            order by history.created_at, {{ by_bytes('history.history_id') }}
        ) as sequence,
        row_number() over (
            partition by history.project_id, history.opportunity_id, history.created_at
            order by {{ by_bytes('history.history_id') }} desc
        ) = 1 as is_last_of_instant,
        history.created_at,
        history.fetched_at
    from history
    left join stages
        on
            history.project_id = stages.project_id
            and history.stage_name = stages.stage_name
    where history.opportunity_id is not null and history.created_at is not null
)

select * from final
