with

versions as (
    select * from {{ ref('int_opportunity_versions') }}
    where
        valid_from <= {{ as_of() }}
        and (valid_to is null or valid_to > {{ as_of() }})
        and (deleted_at is null or deleted_at > {{ as_of() }})
),

opportunities as (
    select * from {{ ref('stg_opportunities') }}
),

owners as (
    select * from {{ ref('stg_owners') }}
),

stages as (
    select * from {{ ref('stage_weights') }}
    where stage = 'opportunity'
),

chances as (
    select
        versions.*,
        case versions.status
            when 'won' then 1
            when 'lost' then 0
            when 'archived' then 0
            else coalesce(versions.win_probability, stages.default_win_probability)
        end as chance
    from versions
    cross join stages
),

final as (
    select
        chances.opportunity_key,
        chances.source_system,
        chances.project_id,
        chances.opportunity_id,
        opportunities.opportunity_name,
        opportunities.company,
        opportunities.facility_id,
        chances.rep_id,
        coalesce(owners.owner_name, chances.rep_id) as rep_name,
        chances.pipeline_id,
        chances.stage,
        chances.status,
        chances.currency,
        opportunities.record_origin,
        {{ flag("chances.status = 'open'") }} as is_open,
        chances.amount,
        chances.chance as win_probability,
        cast(chances.amount * chances.chance as {{ type_money() }}) as expected_amount,
        chances.expected_close_date,
        opportunities.created_at,
        chances.valid_from as unchanged_since,
        case
            when opportunities.changed_at between chances.valid_from and {{ as_of() }}
                then opportunities.changed_at
            else chances.valid_from
        end as changed_at,
        {{ built_at() }} as updated_at
    from chances
    inner join opportunities on chances.opportunity_key = opportunities.opportunity_key
    left join owners
        on
            chances.source_system = owners.source_system
            and chances.project_id = owners.project_id
            and chances.rep_id = owners.owner_id
)

select * from final
