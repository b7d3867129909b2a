with

deletions as (
    select * from {{ ref('base_salesforce__deletions') }}
),

history as (
    select * from {{ source('raw_salesforce', 'opportunity_history') }}
),

field_history as (
    select * from {{ source('raw_salesforce', 'opportunity_field_history') }}
),

final as (
    select
        source_system,
        project_id,
        entity_type,
        entity_id,
        written_xid,
        stated_at
    from deletions
    union all
    select
        cast('salesforce' as {{ type_label() }}) as source_system,
        project_id,
        cast('deal' as {{ type_label() }}) as entity_type,
        opportunity_id as entity_id,
        loaded_xid as written_xid,
        cast(null as {{ type_instant() }}) as stated_at
    from history
    union all
    select
        cast('salesforce' as {{ type_label() }}) as source_system,
        project_id,
        cast('deal' as {{ type_label() }}) as entity_type,
        opportunity_id as entity_id,
        loaded_xid as written_xid,
        cast(null as {{ type_instant() }}) as stated_at
    from field_history
)

select * from final
