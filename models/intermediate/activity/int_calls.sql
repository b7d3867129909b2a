with

scheduled_calls as (
    select * from {{ ref('stg_activities') }}
    where activity_type = 'call' and scheduled_at is not null
),

completed_calls as (
    select * from {{ ref('stg_activities') }}
    where activity_type = 'call' and completed_at is not null
),

final as (
    select
        activity_key,
        source_system,
        project_id,
        activity_id,
        rep_id,
        cast('scheduled' as {{ type_label() }}) as counted_by,
        scheduled_date as call_date,
        scheduled_hour as call_hour,
        {{ local_day('scheduled_at', "'UTC'") }} as utc_day,
        case
            when is_deleted then 'deleted'
            when created_at > {{ as_of() }} then 'created after as_of'
        end as excluded_reason,
        not is_deleted and (created_at is null or created_at <= {{ as_of() }}) as is_counted,
        record_origin,
        1 as is_booked,
        {{ flag('scheduled_at <= ' ~ as_of()) }} as is_due,
        {{ flag('scheduled_at <= ' ~ as_of() ~ ' and completed_at <= ' ~ as_of()) }} as is_held,
        0 as is_conducted,
        scheduled_at as counted_at
    from scheduled_calls
    union all
    select
        activity_key,
        source_system,
        project_id,
        activity_id,
        rep_id,
        cast('completed' as {{ type_label() }}) as counted_by,
        completed_date as call_date,
        completed_hour as call_hour,
        {{ local_day('completed_at', "'UTC'") }} as utc_day,
        case
            when is_deleted then 'deleted'
            when created_at > {{ as_of() }} then 'created after as_of'
            when completed_at > {{ as_of() }} then 'completed after as_of'
        end as excluded_reason,
        not is_deleted
        and (created_at is null or created_at <= {{ as_of() }})
        and completed_at <= {{ as_of() }} as is_counted,
        record_origin,
        0 as is_booked,
        0 as is_due,
        0 as is_held,
        1 as is_conducted,
        completed_at as counted_at
    from completed_calls
)

select * from final
