with

source as (
    select * from {{ source('raw_pipedrive', 'activities') }}
),

-- Tasks, deadlines and the like reach nobody.
final as (
    select
        cast('pipedrive' as {{ type_label() }}) as source_system,
        project_id,
        activity_id,
        type as activity_type,
        owner_id as rep_id,
        lead_id,
        deal_id as opportunity_id,
        cast(null as {{ type_label() }}) as facility_id,
        case when type = 'call' then 'phone' else type end as channel,
        coalesce(due_at, {{ start_of_day('due_date') }}) as scheduled_at,
        case
            when is_done then coalesce(done_at, due_at, {{ start_of_day('due_date') }})
        end as completed_at,
        cast(null as {{ type_label() }}) as outcome,
        cast(null as {{ type_label() }}) as item_id,
        added_at as created_at,
        updated_at,
        coalesce(is_deleted, false) or is_gone as is_deleted,
        {{ dbt.concat(["'activity '", 'activity_id']) }} as record_origin
    from source
    where type in ('call', 'meeting', 'email')
)

select * from final
