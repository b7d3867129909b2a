with

fetched_deals as (
    select * from {{ source('raw_pipedrive', 'deals') }}
),

listed_deals as (
    select * from {{ source('raw_pipedrive', 'listed_deals') }}
),

histories as (
    select * from {{ source('raw_pipedrive', 'deal_histories') }}
),

-- Follow-up work reads the history with the deal. A list tells of deals whose history comes later,
-- where it was not read for the very state that is listed.
states as (
    select
        project_id,
        deal_id,
        pipeline_id,
        stage_id,
        status,
        is_deleted,
        is_gone,
        false as is_history_missing,
        added_at,
        updated_at,
        fetched_at,
        fetched_at as stated_at
    from fetched_deals
    union all
    select
        listed_deals.project_id,
        listed_deals.deal_id,
        listed_deals.pipeline_id,
        listed_deals.stage_id,
        listed_deals.status,
        listed_deals.is_deleted,
        listed_deals.is_gone,
        listed_deals.history_mark is not null
        and coalesce(listed_deals.history_mark != histories.history_mark, true)
            as is_history_missing,
        listed_deals.added_at,
        listed_deals.updated_at,
        listed_deals.fetched_at,
        coalesce(listed_deals.gone_seen_at, listed_deals.fetched_at) as stated_at
    from listed_deals
    left join histories
        on
            listed_deals.project_id = histories.project_id
            and listed_deals.deal_id = histories.deal_id
),

-- The same deal may be known from both. What it is, says the state that Pipedrive updated last;
-- whether it is still there, who looked last.
ranked_states as (
    select
        project_id,
        deal_id,
        pipeline_id,
        stage_id,
        status,
        is_deleted,
        first_value(is_gone) over (
            partition by project_id, deal_id order by stated_at desc, is_gone asc
        ) as is_gone,
        is_history_missing,
        added_at,
        updated_at,
        fetched_at,
        max(stated_at) over (partition by project_id, deal_id) as stated_at,
        row_number() over (
            partition by project_id, deal_id
            order by coalesce(updated_at, added_at) desc nulls last, fetched_at desc
        ) as place
    from states
),

final as (
    select
        cast('pipedrive' as {{ type_label() }}) as source_system,
        project_id,
        deal_id,
        pipeline_id,
        stage_id,
        status,
        is_deleted,
        is_gone,
        is_history_missing,
        added_at,
        updated_at,
        case when is_gone then stated_at else fetched_at end as fetched_at
    from ranked_states
    where place = 1
)

select * from final
