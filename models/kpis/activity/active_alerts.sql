with

alerts as (
    select * from {{ ref('int_alerts') }}
),

episodes as (
    select * from {{ ref('alert_episodes') }}
    where opened_at <= {{ as_of() }} and (resolved_at is null or resolved_at > {{ as_of() }})
),

final as (
    select
        alerts.alert_key,
        alerts.rule,
        alerts.priority,
        alerts.source_system,
        alerts.project_id,
        alerts.subject_type,
        alerts.subject_id,
        alerts.subject_name,
        alerts.message,
        alerts.value,
        alerts.threshold,
        coalesce(episodes.opened_at, {{ as_of() }}) as since,
        {{ built_at() }} as updated_at
    from alerts
    left join episodes on alerts.alert_key = episodes.alert_key
)

select * from final
