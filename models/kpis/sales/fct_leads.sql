with

leads as (
    select * from {{ ref('stg_leads') }}
),

stages as (
    select * from {{ ref('stage_weights') }}
),

-- A lead that only states its present stage, and not since when, is taken to have entered it when
-- it last changed.
entered as (
    select
        leads.*,
        coalesce(leads.sql_at, case when leads.stage = 'sql' then leads.changed_at end)
            as entered_sql_at,
        coalesce(
            leads.opportunity_at, case when leads.stage = 'opportunity' then leads.changed_at end
        ) as entered_opportunity_at,
        coalesce(leads.won_at, case when leads.stage = 'won' then leads.changed_at end)
            as reached_won_at,
        case when leads.stage = 'lost' then coalesce(leads.lost_at, leads.changed_at) end
            as given_up_at
    from leads
),

-- A stage counts as reached when it, or any stage after it, was entered.
reached as (
    select
        entered.*,
        least(entered_sql_at, entered_opportunity_at, reached_won_at) as reached_sql_at,
        least(entered_opportunity_at, reached_won_at) as reached_opportunity_at
    from entered
),

-- Only what had happened by then is known as of an instant.
known as (
    select
        reached.*,
        case when reached_sql_at <= {{ as_of() }} then reached_sql_at end as known_sql_at,
        case when reached_opportunity_at <= {{ as_of() }} then reached_opportunity_at end
            as known_opportunity_at,
        case when reached_won_at <= {{ as_of() }} then reached_won_at end as known_won_at,
        case when given_up_at <= {{ as_of() }} then given_up_at end as known_lost_at,
        case
            when reached_won_at <= {{ as_of() }} then 4
            when reached_opportunity_at <= {{ as_of() }} then 3
            when reached_sql_at <= {{ as_of() }} then 2
            else 1
        end as stages_reached
    from reached
),

final as (
    select
        known.lead_key,
        known.source_system,
        known.project_id,
        known.lead_id,
        known.facility_id,
        known.rep_id,
        case when known.known_lost_at is not null then 'lost' else stages.stage end as stage,
        known.currency,
        case
            when known.is_deleted then 'deleted'
            when known.created_at > {{ as_of() }} then 'created after as_of'
        end as excluded_reason,
        known.record_origin,
        known.stages_reached,
        {{ months_between(
            'known.created_month', local_month(as_of(), 'known.timezone')
        ) }} as months_since_created,
        {{ months_to('known_opportunity_at') }} as months_to_opportunity,
        {{ months_to('known_won_at') }} as months_to_won,
        {{ months_to('known_lost_at') }} as months_to_lost,
        case when known.amount >= 0 then known.amount end as amount,
        case
            when known.known_lost_at is null and stages.stage = 'won' then 1
            else coalesce(known.win_probability, stages.default_win_probability)
        end as win_probability,
        known.created_month as month,
        known.created_at,
        known.known_sql_at as sql_at,
        known.known_opportunity_at as opportunity_at,
        known.known_won_at as won_at,
        known.known_lost_at as lost_at,
        {{ built_at() }} as updated_at
    from known
    inner join stages on known.stages_reached = stages.stage_order
)

select * from final
