with

snapshots as (
    select * from {{ ref('base_salesforce__snapshots') }}
),

opportunities as (
    select * from {{ source('raw_salesforce', 'opportunities') }}
),

field_history as (
    select * from {{ source('raw_salesforce', 'opportunity_field_history') }}
),

-- A snapshot is kept of each change of amount, probability or close date, too.
compared as (
    select
        project_id,
        opportunity_id,
        history_id,
        stage_name,
        lag(stage_name) over (
            partition by project_id, opportunity_id order by sequence
        ) as previous_stage_name,
        sequence,
        created_at,
        fetched_at
    from snapshots
    where stage_name is not null
),

moves as (
    select
        project_id,
        opportunity_id,
        history_id,
        stage_name,
        previous_stage_name,
        row_number() over (
            partition by project_id, opportunity_id order by sequence
        ) - 1 as sequence,
        created_at,
        fetched_at
    from compared
    where previous_stage_name is null or stage_name != previous_stage_name
),

-- The first stage is entered when the opportunity is created. One without a history is known to be
-- in its stage since its last change of it.
entries as (
    select
        moves.project_id,
        moves.opportunity_id,
        moves.stage_name,
        moves.previous_stage_name,
        moves.sequence,
        case
            when moves.sequence = 0 and opportunities.created_at < moves.created_at
                then opportunities.created_at
            else moves.created_at
        end as entered_at,
        moves.fetched_at,
        {{ dbt.concat([
            "'opportunity '", 'moves.opportunity_id', "', history '", 'moves.history_id',
        ]) }} as record_origin
    from moves
    left join opportunities
        on
            moves.project_id = opportunities.project_id
            and moves.opportunity_id = opportunities.opportunity_id
    union all
    select
        opportunities.project_id,
        opportunities.opportunity_id,
        opportunities.stage_name,
        cast(null as {{ type_label() }}) as previous_stage_name,
        0 as sequence,
        coalesce(opportunities.last_stage_change_at, opportunities.created_at) as entered_at,
        opportunities.fetched_at,
        {{ dbt.concat(["'opportunity '", 'opportunities.opportunity_id', "', its stage'"]) }}
            as record_origin
    from opportunities
    left join moves
        on
            opportunities.project_id = moves.project_id
            and opportunities.opportunity_id = moves.opportunity_id
            and moves.sequence = 0
    where moves.opportunity_id is null and opportunities.stage_name is not null
),

-- An opportunity that goes to and fro within a second enters a stage twice at one instant. The last
-- of these entries counts: it tells where it was left.
ranked_entries as (
    select
        entries.*,
        row_number() over (
            partition by project_id, opportunity_id, stage_name, entered_at order by sequence desc
        ) as place
    from entries
    where entered_at is not null
),

record_type_changes as (
    select
        project_id,
        opportunity_id,
        max(created_at) as changed_at
    from field_history
    where field = 'RecordType'
    group by project_id, opportunity_id
),

final as (
    select
        cast('salesforce' as {{ type_label() }}) as source_system,
        ranked_entries.project_id,
        cast('deal' as {{ type_label() }}) as entity_type,
        ranked_entries.opportunity_id as entity_id,
        -- Stages belong to no pipeline: the opportunity does, by its record type. Which one it had
        -- before that changed is not told by the history of its stages.
        case
            when
                record_type_changes.changed_at is null
                or record_type_changes.changed_at <= ranked_entries.entered_at
                then opportunities.record_type_id
        end as pipeline_id,
        ranked_entries.stage_name as stage_id,
        cast(null as {{ type_label() }}) as stage_group_id,
        ranked_entries.previous_stage_name as previous_stage_id,
        cast(null as {{ type_label() }}) as delivery_id,
        cast(ranked_entries.sequence as bigint) as sequence,
        ranked_entries.entered_at,
        opportunities.created_at as entity_created_at,
        ranked_entries.fetched_at as ingested_at,
        ranked_entries.record_origin
    from ranked_entries
    left join opportunities
        on
            ranked_entries.project_id = opportunities.project_id
            and ranked_entries.opportunity_id = opportunities.opportunity_id
    left join record_type_changes
        on
            ranked_entries.project_id = record_type_changes.project_id
            and ranked_entries.opportunity_id = record_type_changes.opportunity_id
    where ranked_entries.place = 1
)

select * from final
