with

opportunities as (
    select * from {{ ref('stg_opportunities') }}
),

stages as (
    select * from {{ ref('stage_weights') }}
),

-- Only what had happened by then is known as of an instant.
outcomes as (
    select
        opportunities.*,
        case
            when opportunities.status = 'open' then 'open'
            when coalesce(opportunities.closed_at, opportunities.changed_at) > {{ as_of() }}
                then 'open'
            else opportunities.status
        end as outcome,
        case when opportunities.closed_at <= {{ as_of() }} then opportunities.closed_at end
            as known_closed_at
    from opportunities
),

measured as (
    select
        outcomes.*,
        case
            when outcome != 'open' then {{ seconds_between('created_at', 'known_closed_at') }}
        end as raw_cycle_seconds,
        case when outcome = 'open' then {{ seconds_between('created_at', as_of()) }} end
            as age_seconds
    from outcomes
),

final as (
    select
        measured.opportunity_key,
        measured.source_system,
        measured.project_id,
        measured.opportunity_id,
        measured.lead_key,
        measured.facility_id,
        measured.rep_id,
        measured.opportunity_name,
        measured.company,
        measured.stage,
        measured.outcome,
        measured.currency,
        case
            when measured.is_deleted then 'deleted'
            when measured.created_at > {{ as_of() }} then 'created after as_of'
        end as excluded_reason,
        measured.record_origin,
        {{ flag("measured.outcome = 'open'") }} as is_open,
        {{ flag("measured.outcome = 'won'") }} as is_won,
        {{ flag("measured.outcome = 'lost'") }} as is_lost,
        {{ flag('measured.raw_cycle_seconds < 0') }} as has_impossible_duration,
        measured.amount,
        case
            when measured.outcome = 'won' then 1
            when measured.outcome = 'lost' then 0
            else coalesce(measured.win_probability, stages.default_win_probability)
        end as win_probability,
        measured.age_seconds,
        case
            when measured.outcome = 'won' and measured.raw_cycle_seconds >= 0
                then measured.raw_cycle_seconds
        end as sales_cycle_seconds,
        measured.created_month as month,
        measured.expected_close_date,
        measured.created_at,
        measured.known_closed_at as closed_at,
        {{ built_at() }} as updated_at
    from measured
    cross join stages
    where stages.stage = 'opportunity'
)

select * from final
