{{ config(
    materialized=flow_materialized(),
    incremental_strategy='delete+insert',
    unique_key=['source_system', 'project_id', 'hour_at'],
    on_schema_change='append_new_columns',
    post_hook=['{{ gather_statistics(this) }}', '{{ remember_flow_position() }}'],
) }}

{%- if not execute %}
    {%- do [ref('int_flow_changes'), ref('base_receiver__replays')] %}
{%- endif %}
{%- set position = flow_position_of(this) if builds_changes() %}
{%- set shares = [50, 85, 95] %}

with

deliveries as (
    select * from {{ ref('base_receiver__deliveries') }}
),

unparsed_deliveries as (
    select * from {{ ref('base_receiver__unparsed_deliveries') }}
),

refusals as (
    select * from {{ ref('base_receiver__refusals') }}
),

stage_events as (
    select * from {{ ref('base_receiver__landed_stage_events') }}
),

{%- if position %}

replays as (
    select * from {{ ref('base_receiver__replays') }}
),

changed as (
    select received_at as instant
    from deliveries
    where {{ is_written_since('written_xid', position) }}
    union all
    select deliveries.received_at as instant
    from replays
    inner join deliveries on replays.delivery_id = deliveries.delivery_id
    where {{ is_written_since('replays.written_xid', position) }}
    union all
    select refused_at as instant
    from refusals
    where {{ is_written_since('written_xid', position) }}
),

-- All hours from the first one that changed: what comes late is rare, and then this is still exact.
first_changed as (
    select {{ hour_of('min(instant)') }} as hour_at from changed
),
{%- endif %}

recent_deliveries as (
    select
        deliveries.*,
        {{ hour_of('received_at') }} as hour_at
    from deliveries
    {%- if position %}
    where received_at >= (select hour_at from first_changed)
    {%- endif %}
),

recent_refusals as (
    select
        refusals.*,
        {{ hour_of('refused_at') }} as hour_at
    from refusals
    {%- if position %}
    where refused_at >= (select hour_at from first_changed)
    {%- endif %}
),

{%- if position %}

-- An event was written together with its delivery or with a replay of it, also on another server.
writers as (
    select written_xid from recent_deliveries
    union all
    select replays.written_xid
    from replays
    inner join recent_deliveries on replays.delivery_id = recent_deliveries.delivery_id
),
{%- endif %}

recent_events as (
    select * from stage_events
    {%- if position %}
    where written_xid >= (select min(written_xid) from writers)
    {%- endif %}
),

repeats as (
    select distinct later.delivery_id
    from recent_deliveries as later
    inner join deliveries as earlier
        on
            later.sender = earlier.sender
            and later.project_id = earlier.project_id
            and later.sender_delivery_id = earlier.sender_delivery_id
            and (
                later.received_at > earlier.received_at
                or (
                    later.received_at = earlier.received_at
                    and later.delivery_id > earlier.delivery_id
                )
            )
),

delays as (
    select
        deliveries.source_system,
        deliveries.project_id,
        deliveries.hour_at,
        {{ seconds_between('events.entered_at', 'events.ingested_at') }} as seconds,
        events.entered_at > events.ingested_at or {{ is_implausible('events.entered_at') }}
            as is_impossible
    from recent_events as events
    inner join recent_deliveries as deliveries on events.delivery_id = deliveries.delivery_id
),

measured_delays as (
    select
        delays.*,
        case when not is_impossible then seconds end as lag_seconds
    from delays
),

lags as (
    select
        source_system,
        project_id,
        hour_at,
        count(*) as stage_events,
        sum({{ flag('is_impossible') }}) as impossible_durations,
        {%- for share in shares %}
        {{ percentile_seconds(share / 100, 'lag_seconds') }} as p{{ share }}_lag_seconds,
        {%- endfor %}
        {{ mean_seconds('lag_seconds') }} as avg_lag_seconds
    from measured_delays
    group by
        source_system,
        project_id,
        hour_at
),

records as (
    select
        recent_deliveries.source_system,
        recent_deliveries.project_id,
        recent_deliveries.hour_at,
        1 as stored,
        {{ flag('repeats.delivery_id is not null') }} as duplicates,
        {{ flag('unparsed_deliveries.delivery_id is not null') }} as unparseable,
        0 as refused
    from recent_deliveries
    left join repeats on recent_deliveries.delivery_id = repeats.delivery_id
    left join unparsed_deliveries
        on recent_deliveries.delivery_id = unparsed_deliveries.delivery_id
    union all
    select
        source_system,
        project_id,
        hour_at,
        0 as stored,
        0 as duplicates,
        0 as unparseable,
        1 as refused
    from recent_refusals
),

counted as (
    select
        source_system,
        project_id,
        hour_at,
        count(*) as received,
        sum(stored) as stored,
        sum(duplicates) as duplicates,
        sum(unparseable) as unparseable,
        sum(refused) as refused
    from records
    group by
        source_system,
        project_id,
        hour_at
),

final as (
    select
        counted.source_system,
        counted.project_id,
        counted.hour_at,
        counted.received,
        counted.stored,
        counted.duplicates,
        counted.unparseable,
        counted.refused,
        coalesce(lags.stage_events, 0) as stage_events,
        coalesce(lags.impossible_durations, 0) as impossible_durations,
        lags.avg_lag_seconds,
        {%- for share in shares %}
        lags.p{{ share }}_lag_seconds,
        {%- endfor %}
        {{ built_at() }} as updated_at
    from counted
    left join lags
        on
            counted.source_system = lags.source_system
            and counted.project_id = lags.project_id
            and counted.hour_at = lags.hour_at
)

select * from final
