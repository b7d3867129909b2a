with

deals as (
    select * from {{ source('raw_hubspot', 'deals') }}
),

archived_deals as (
    select * from {{ source('raw_hubspot', 'archived_deals') }}
),

merged_deals as (
    select * from {{ source('raw_hubspot', 'merged_deals') }}
),

-- A deal that was merged into one that was merged again stands here twice.
mergers as (
    select
        project_id,
        deal_id,
        min(fetched_at) as seen_at
    from merged_deals
    group by project_id, deal_id
),

known_deals as (
    select
        project_id,
        deal_id,
        is_gone,
        gone_seen_at,
        fetched_at
    from deals
    union all
    select
        mergers.project_id,
        mergers.deal_id,
        true as is_gone,
        mergers.seen_at as gone_seen_at,
        mergers.seen_at as fetched_at
    from mergers
    left join deals
        on
            mergers.project_id = deals.project_id
            and mergers.deal_id = deals.deal_id
    where deals.deal_id is null
),

-- What left the list of deleted deals was restored, or went for good: then it is gone, too.
judged_deals as (
    select
        known_deals.project_id,
        known_deals.deal_id,
        known_deals.fetched_at,
        case when archived_deals.is_gone then false else archived_deals.deal_id is not null end
            as is_archived,
        mergers.deal_id is not null as is_merged,
        known_deals.is_gone,
        coalesce(archived_deals.archived_at, archived_deals.fetched_at) as archived_at,
        mergers.seen_at as merged_at,
        known_deals.gone_seen_at,
        case
            when archived_deals.gone_seen_at > known_deals.fetched_at
                then archived_deals.gone_seen_at
            else known_deals.fetched_at
        end as found_at
    from known_deals
    left join archived_deals
        on
            known_deals.project_id = archived_deals.project_id
            and known_deals.deal_id = archived_deals.deal_id
    left join mergers
        on
            known_deals.project_id = mergers.project_id
            and known_deals.deal_id = mergers.deal_id
),

final as (
    select
        cast('hubspot' as {{ type_label() }}) as source_system,
        project_id,
        cast('deal' as {{ type_label() }}) as entity_type,
        deal_id as entity_id,
        is_archived or is_merged or is_gone as is_deleted,
        case
            when is_archived then archived_at
            when is_merged then merged_at
            when is_gone then gone_seen_at
            else found_at
        end as stated_at,
        fetched_at as ingested_at
    from judged_deals
)

select * from final
