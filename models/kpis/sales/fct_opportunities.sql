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
            when outcome = 'open' then {{ seconds_between('created_at', as_of()) }}
            else {{ seconds_between('created_at', 'known_closed_at') }}
        end as raw_seconds
    from outcomes
),

judged as (
    select
        measured.*,
        raw_seconds < 0 or (raw_seconds is not null and {{ is_implausible('created_at') }})
            as is_impossible
    from measured
),

final as (
    select
        judged.opportunity_key,
        judged.source_system,
        judged.project_id,
        judged.opportunity_id,
        judged.lead_key,
        judged.facility_id,
        judged.rep_id,
        judged.opportunity_name,
        judged.company,
        judged.stage,
        judged.outcome,
        judged.currency,
        case
            when judged.is_deleted then 'deleted'
            when judged.created_at > {{ as_of() }} then 'created after as_of'
        end as excluded_reason,
        judged.record_origin,
        {{ flag("judged.outcome = 'open'") }} as is_open,
        {{ flag("judged.outcome = 'won'") }} as is_won,
        {{ flag("judged.outcome = 'lost'") }} as is_lost,
        {{ flag('judged.is_impossible') }} as has_impossible_duration,
        case when judged.amount >= 0 then judged.amount end as amount,
        case
            when judged.outcome = 'won' then 1
            when judged.outcome in ('lost', 'archived') then 0
            else coalesce(judged.win_probability, stages.default_win_probability)
        end as win_probability,
        case when judged.outcome = 'open' and not judged.is_impossible then judged.raw_seconds end
            as age_seconds,
        case when judged.outcome = 'won' and not judged.is_impossible then judged.raw_seconds end
            as sales_cycle_seconds,
        judged.created_month as month,
        judged.expected_close_date,
        judged.created_at,
        judged.known_closed_at as closed_at,
        {{ built_at() }} as updated_at
    from judged
    cross join stages
    where stages.stage = 'opportunity'
)

select * from final
