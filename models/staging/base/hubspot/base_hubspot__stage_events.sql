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

known_stages as (
    select
        project_id,
        deal_id,
        value as stage_id,
        lag(value) over (partition by project_id, deal_id order by sequence) as previous_stage_id,
        sequence,
        changed_at as entered_at,
        fetched_at
    from deal_history
    where property = 'dealstage' and value is not null
),

-- The history begins with the stage in which a deal was made. Where there is none of it, the deal
-- is where it began, as far as can be told.
entries as (
    select
        project_id,
        deal_id,
        stage_id,
        previous_stage_id,
        sequence,
        entered_at,
        fetched_at,
        {{ dbt.concat(["'deal '", 'deal_id', "', history of its stage'"]) }} as record_origin
    from known_stages
    where stage_id != coalesce(previous_stage_id, '')
    union all
    select
        deals.project_id,
        deals.deal_id,
        deals.stage_id,
        cast(null as {{ type_label() }}) as previous_stage_id,
        cast(0 as bigint) as sequence,
        deals.created_at as entered_at,
        deals.fetched_at,
        {{ dbt.concat(["'deal '", 'deals.deal_id', "', first stage'"]) }} as record_origin
    from deals
    left join known_stages
        on
            deals.project_id = known_stages.project_id
            and deals.deal_id = known_stages.deal_id
    where known_stages.deal_id is null and deals.stage_id is not null
),

final as (
    select
        cast('hubspot' as {{ type_label() }}) as source_system,
        entries.project_id,
        cast('deal' as {{ type_label() }}) as entity_type,
        entries.deal_id as entity_id,
        -- A deal tells the pipeline of the stage that it is in, and of no other one.
        coalesce(
            stages.pipeline_id,
            case when entries.stage_id = deals.stage_id then deals.pipeline_id end
        ) as pipeline_id,
        entries.stage_id,
        cast(null as {{ type_label() }}) as stage_group_id,
        entries.previous_stage_id,
        cast(null as {{ type_label() }}) as delivery_id,
        entries.sequence,
        entries.entered_at,
        deals.created_at as entity_created_at,
        entries.fetched_at as ingested_at,
        entries.record_origin
    from entries
    left join deals
        on
            entries.project_id = deals.project_id
            and entries.deal_id = deals.deal_id
    left join stages
        on
            entries.project_id = stages.project_id
            and entries.stage_id = stages.stage_id
)

select * from final
