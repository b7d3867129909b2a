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

{%- if is_incremental() %}

running as (
    select * from {{ this }}
    where resolved_at is null
),

latest as (
    select max(greatest(last_seen_at, coalesce(resolved_at, last_seen_at))) as known_at
    from {{ this }}
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
    -- What was known later says how it went on: a look back changes nothing.
    where coalesce((select latest.known_at from latest) <= {{ as_of() }}, true)
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

final as (
    select
        alert_key,
        rule,
        priority,
        source_system,
        project_id,
        subject_type,
        subject_id,
        subject_name,
        message,
        first_value,
        last_value,
        threshold,
        opened_at,
        last_seen_at,
        resolved_at,
        {{ built_at() }} as updated_at
    from episodes
)

select * from final
