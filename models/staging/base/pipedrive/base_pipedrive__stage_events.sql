with

deals as (
    select * from {{ ref('base_pipedrive__deals') }}
),

changes as (
    select * from {{ ref('base_pipedrive__deal_changes') }}
),

moves as (
    select
        project_id,
        deal_id,
        change_id,
        old_value as previous_stage_id,
        new_value as stage_id,
        changed_at as moved_at,
        fetched_at,
        -- Ids are numbers kept as text: the shorter one is the smaller one.
        row_number() over (
            partition by project_id, deal_id
            order by changed_at, length(change_id), change_id
        ) as sequence
    from changes
    where field_key = 'stage_id' and changed_at is not null
),

creations as (
    select
        project_id,
        deal_id,
        min(changed_at) as created_at
    from changes
    where field_key = 'add_time'
    group by project_id, deal_id
),

dated_deals as (
    select
        deals.project_id,
        deals.deal_id,
        deals.pipeline_id,
        deals.stage_id,
        deals.is_history_missing,
        deals.fetched_at,
        -- The deal says it best: for an imported one the change has the instant of the import.
        coalesce(deals.added_at, creations.created_at) as created_at
    from deals
    left join creations
        on
            deals.project_id = creations.project_id
            and deals.deal_id = creations.deal_id
),

-- No change tells of the stage in which a deal began: it is the one that the first move left, or,
-- before any move, the one where the deal is. Where moves may still be to come, it is not known.
first_stages as (
    select
        dated_deals.project_id,
        dated_deals.deal_id,
        case
            when moves.deal_id is not null then moves.previous_stage_id
            when not coalesce(dated_deals.is_history_missing, false) then dated_deals.stage_id
        end as stage_id,
        coalesce(moves.fetched_at, dated_deals.fetched_at) as fetched_at,
        -- Never after it was left, or the deal would seem to be back in it.
        case
            when moves.moved_at < dated_deals.created_at then moves.moved_at
            else dated_deals.created_at
        end as entered_at
    from dated_deals
    left join moves
        on
            dated_deals.project_id = moves.project_id
            and dated_deals.deal_id = moves.deal_id
            and moves.sequence = 1
),

entries as (
    select
        project_id,
        deal_id,
        stage_id,
        cast(null as {{ type_label() }}) as previous_stage_id,
        cast(0 as bigint) as sequence,
        entered_at,
        fetched_at,
        {{ dbt.concat(["'deal '", 'deal_id', "', first stage'"]) }} as record_origin
    from first_stages
    union all
    select
        project_id,
        deal_id,
        stage_id,
        previous_stage_id,
        sequence,
        moved_at as entered_at,
        fetched_at,
        {{ dbt.concat(["'deal '", 'deal_id', "', change '", 'change_id']) }} as record_origin
    from moves
),

-- A deal that goes to and fro within a second enters a stage twice at one instant. The last of
-- these entries counts: it tells where the deal was left.
ranked_entries as (
    select
        project_id,
        deal_id,
        stage_id,
        previous_stage_id,
        sequence,
        entered_at,
        fetched_at,
        record_origin,
        row_number() over (
            partition by project_id, deal_id, stage_id, entered_at order by sequence desc
        ) as place
    from entries
    where stage_id is not null and entered_at is not null
),

final as (
    select
        cast('pipedrive' as {{ type_label() }}) as source_system,
        ranked_entries.project_id,
        cast('deal' as {{ type_label() }}) as entity_type,
        ranked_entries.deal_id as entity_id,
        -- The deal tells the pipeline of the stage that it is in, and of no other one.
        case
            when ranked_entries.stage_id = dated_deals.stage_id then dated_deals.pipeline_id
        end as pipeline_id,
        ranked_entries.stage_id,
        cast(null as {{ type_label() }}) as stage_group_id,
        ranked_entries.previous_stage_id,
        cast(null as {{ type_label() }}) as delivery_id,
        ranked_entries.sequence,
        ranked_entries.entered_at,
        dated_deals.created_at as entity_created_at,
        ranked_entries.fetched_at as ingested_at,
        ranked_entries.record_origin
    from ranked_entries
    left join dated_deals
        on
            ranked_entries.project_id = dated_deals.project_id
            and ranked_entries.deal_id = dated_deals.deal_id
    where ranked_entries.place = 1
)

select * from final
