{#- What has been is kept nowhere else, so a full refresh leaves it. -#}
{{ config(
    materialized='incremental',
    incremental_strategy='delete+insert',
    unique_key=['alert_key', 'opened_at'],
    full_refresh=false,
    on_schema_change='append_new_columns',
) }}

with

alerts as (
    select * from {{ ref('int_alerts') }}
),

builds as (
    select * from {{ ref('int_alert_builds') }}
),

{%- if is_incremental() %}

running as (
    select * from {{ this }}
    where resolved_at is null
),

{%- endif %}

episodes as (
    {%- if is_incremental() %}
    select
        coalesce(alerts.alert_key, running.alert_key) as alert_key,
        coalesce(running.opened_at, {{ as_of() }}) as opened_at,
        case when alerts.alert_key is null then {{ as_of() }} end as resolved_at,
        case when alerts.alert_key is null then running.last_seen_at else {{ as_of() }} end
            as last_seen_at,
        coalesce(running.first_value, alerts.value) as first_value,
        {%- for column in [
            'rule', 'priority', 'source_system', 'project_id', 'subject_type', 'subject_id',
            'subject_name', 'message', 'threshold',
        ] %}
        coalesce(alerts.{{ column }}, running.{{ column }}) as {{ column }},
        {%- endfor %}
        coalesce(alerts.value, running.last_value) as last_value
    from alerts
    full outer join running on alerts.alert_key = running.alert_key
    {%- else %}
    select
        alerts.*,
        {{ as_of() }} as opened_at,
        cast(null as {{ type_instant() }}) as resolved_at,
        {{ as_of() }} as last_seen_at,
        value as first_value,
        value as last_value
    from alerts
    {%- endif %}
),

-- Where a later build has said how it went on, a look back changes nothing.
final as (
    select
        episodes.alert_key,
        episodes.rule,
        episodes.priority,
        episodes.source_system,
        episodes.project_id,
        episodes.subject_type,
        episodes.subject_id,
        episodes.subject_name,
        episodes.message,
        episodes.first_value,
        episodes.last_value,
        episodes.threshold,
        episodes.opened_at,
        episodes.last_seen_at,
        episodes.resolved_at,
        {{ built_at() }} as updated_at
    from episodes
    inner join builds on builds.known_at <= {{ as_of() }}
)

select * from final
