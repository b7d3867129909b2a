with

opportunities as (
    select * from {{ source('raw_salesforce', 'opportunities') }}
),

final as (
    select
        cast('salesforce' as {{ type_label() }}) as source_system,
        project_id,
        cast('deal' as {{ type_label() }}) as entity_type,
        opportunity_id as entity_id,
        coalesce(is_deleted, false) or is_gone as is_deleted,
        -- A deletion moves the instant of the last change; one for good is only seen.
        case
            when is_gone then gone_seen_at
            when is_deleted then system_modified_at
            else fetched_at
        end as stated_at,
        fetched_at as ingested_at,
        loaded_xid as written_xid
    from opportunities
)

select * from final
