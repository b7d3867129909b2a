with

source as (
    select
        refusal_id,
        sender,
        project_id,
        reason,
        refused_at,
        written_xid
    from {{ source('raw', 'refusals') }}
),

-- Anybody may put any project into an address: one that the receiver did not find is none.
final as (
    select
        refusal_id,
        case sender when 'zapier' then 'pipedrive' else coalesce(sender, 'unknown') end
            as source_system,
        case
            when reason in ('unknown_project', 'project_missing') then 'unknown'
            else coalesce(project_id, 'unknown')
        end as project_id,
        reason,
        refused_at,
        written_xid
    from source
)

select * from final
