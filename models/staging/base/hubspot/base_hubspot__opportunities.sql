{%- set standard = {
    'closed_lost_reason': 'closed_lost_reason',
    'closed_won_reason': 'closed_won_reason',
    'deal_currency_code': 'currency',
    'dealname': 'name',
    'dealstage': 'stage_id',
    'dealtype': 'deal_type',
    'hs_manual_forecast_category': 'forecast_category',
    'hs_next_step': 'next_step',
    'hubspot_owner_id': 'owner_id',
    'hubspot_team_id': 'team_id',
    'pipeline': 'pipeline_id',
} %}

with

deals as (
    select * from {{ ref('base_hubspot__deals') }}
),

deal_history as (
    select * from {{ ref('base_hubspot__deal_history') }}
),

stages as (
    select * from {{ ref('base_hubspot__deal_stages') }}
),

deletions as (
    select * from {{ ref('base_hubspot__deletions') }}
),

associations as (
    select * from {{ source('raw_hubspot', 'associations') }}
),

companies as (
    select * from {{ source('raw_hubspot', 'companies') }}
),

field_map as (
    select * from {{ ref('base_settings__field_map') }}
    where entity = 'deals'
),

projects as (
    select * from {{ ref('base_settings__projects') }}
),

last_moves as (
    select
        project_id,
        deal_id,
        max(changed_at) as moved_at
    from deal_history
    where property = 'dealstage'
    group by project_id, deal_id
),

-- The deal's own flags speak for a stage that was deleted before it was ever seen.
judged_deals as (
    select
        deals.*,
        coalesce(stages.stage_name, deals.stage_id) as stage,
        coalesce(
            stages.status,
            case
                when deals.is_closed_won then 'won' when deals.is_closed_lost then 'lost'
                else 'open'
            end
        ) as status,
        coalesce(deals.stage_probability, stages.probability) as win_probability
    from deals
    left join stages
        on
            deals.project_id = stages.project_id
            and deals.stage_id = stages.stage_id
),

final as (
    select
        judged_deals.source_system,
        judged_deals.project_id,
        judged_deals.deal_id as opportunity_id,
        {{ mapped_field('judged_deals', 'field_map.lead_id', standard) }} as lead_id,
        {{ mapped_field('judged_deals', 'field_map.facility_id', standard) }} as facility_id,
        coalesce(
            {{ mapped_field('judged_deals', 'field_map.rep_id', standard) }},
            judged_deals.owner_id
        ) as rep_id,
        judged_deals.name,
        coalesce(
            {{ mapped_field('judged_deals', 'field_map.company', standard) }}, companies.name
        ) as company,
        judged_deals.stage,
        judged_deals.status,
        judged_deals.amount,
        judged_deals.currency,
        judged_deals.win_probability,
        judged_deals.created_at,
        -- HubSpot fills in the day when a deal is closed; somebody may have emptied it, or set one
        -- that was still to come, or before there was a deal. The stage was entered at an instant.
        case
            when judged_deals.status = 'open' then null
            when
                judged_deals.close_at
                between judged_deals.created_at and judged_deals.fetched_at
                then judged_deals.close_at
            else
                greatest(
                    coalesce(last_moves.moved_at, judged_deals.modified_at),
                    judged_deals.created_at
                )
        end as closed_at,
        {{ local_period(
            "'day'", 'judged_deals.close_at', "coalesce(projects.timezone, 'UTC')"
        ) }} as expected_close_date,
        judged_deals.modified_at as updated_at,
        coalesce(deletions.is_deleted, judged_deals.is_gone) as is_deleted,
        {{ dbt.concat(["'deal '", 'judged_deals.deal_id']) }} as record_origin
    from judged_deals
    left join last_moves
        on
            judged_deals.project_id = last_moves.project_id
            and judged_deals.deal_id = last_moves.deal_id
    left join associations
        on
            judged_deals.project_id = associations.project_id
            and judged_deals.deal_id = associations.from_id
            and associations.from_type = 'deals'
            and associations.to_type = 'companies'
    left join companies
        on
            associations.project_id = companies.project_id
            and associations.to_id = companies.company_id
    left join deletions
        on
            judged_deals.project_id = deletions.project_id
            and judged_deals.deal_id = deletions.entity_id
    left join field_map
        on
            judged_deals.source_system = field_map.source_system
            and judged_deals.project_id = field_map.project_id
    left join projects
        on
            judged_deals.source_system = projects.source_system
            and judged_deals.project_id = projects.project_id
)

select * from final
