{%- set clocks = ['seconds', 'working_seconds'] -%}

with

metrics as (
    select
        flow_metrics.*,
        start_sub_key is not null or end_sub_key is not null as is_by_map
    from {{ ref('base_settings__flow_metrics') }} as flow_metrics
    where is_on
),

versions as (
    select * from {{ ref('base_settings__report_versions') }}
    where state = 'published'
),

periods as (
    select * from {{ ref('flow_periods') }}
),

intervals as (
    select
        {{ entity_key('entity_id') }} as entity_key,
        records.*
    from {{ ref('int_stage_intervals') }} as records
    where entered_at <= {{ as_of() }}
),

timeline as (
    select
        {{ entity_key('entity_id') }} as entity_key,
        records.*
    from {{ ref('deal_stage_timeline') }} as records
),

deleted as (
    select
        entity_type,
        {{ entity_key('entity_id') }} as entity_key
    from {{ ref('int_deleted_entities') }} as records
),

-- Metrics that name a sub-stage exist under every published version of the map; the others stand
-- under version 0 and need none.
metric_versions as (
    select
        metrics.*,
        0 as report_version
    from metrics
    where not is_by_map
    union all
    select
        metrics.*,
        versions.report_version
    from metrics
    cross join versions
    where metrics.is_by_map
),

measured_projects as (
    select distinct
        source_system,
        project_id
    from metrics
),

visits as (
    select
        0 as report_version,
        intervals.source_system,
        intervals.project_id,
        intervals.entity_type,
        intervals.entity_key,
        intervals.visit_number,
        intervals.pipeline_id,
        intervals.stage_id,
        cast(null as {{ type_label() }}) as sub_key,
        intervals.entered_at,
        intervals.working_seconds
    from intervals
    inner join measured_projects
        on
            intervals.source_system = measured_projects.source_system
            and intervals.project_id = measured_projects.project_id
    left join deleted
        on
            intervals.entity_key = deleted.entity_key
            and intervals.entity_type = deleted.entity_type
    where deleted.entity_key is null
    union all
    select
        timeline.report_version,
        timeline.source_system,
        timeline.project_id,
        timeline.entity_type,
        timeline.entity_key,
        timeline.visit_number,
        timeline.pipeline_id,
        timeline.stage_id,
        timeline.sub_key,
        timeline.entered_at,
        timeline.working_seconds
    from timeline
    inner join measured_projects
        on
            timeline.source_system = measured_projects.source_system
            and timeline.project_id = measured_projects.project_id
),

clocked as (
    select
        visits.*,
        coalesce(sum(working_seconds) over (
            partition by report_version, entity_type, entity_key
            order by visit_number
            rows between unbounded preceding and 1 preceding
        ), 0) as working_seconds_before
    from visits
),

entries as (
    select
        metric_versions.flow_metric_id,
        metric_versions.report_version,
        clocked.source_system,
        clocked.project_id,
        clocked.entity_type,
        clocked.entity_key,
        {%- for edge in ['start', 'end'] %}
        (
            clocked.sub_key = metric_versions.{{ edge }}_sub_key
            or (
                clocked.stage_id = metric_versions.{{ edge }}_stage_id
                and (
                    metric_versions.{{ edge }}_pipeline_id is null
                    or clocked.pipeline_id = metric_versions.{{ edge }}_pipeline_id
                )
            )
        ) as is_{{ edge }},
        {%- endfor %}
        clocked.entered_at,
        clocked.working_seconds_before
    from metric_versions
    inner join clocked
        on
            metric_versions.report_version = clocked.report_version
            and metric_versions.source_system = clocked.source_system
            and metric_versions.project_id = clocked.project_id
            and (
                clocked.sub_key in (metric_versions.start_sub_key, metric_versions.end_sub_key)
                or clocked.stage_id
                in (metric_versions.start_stage_id, metric_versions.end_stage_id)
            )
),

begun as (
    select
        entries.*,
        min(case when is_start then entered_at end) over (
            partition by flow_metric_id, report_version, entity_type, entity_key
        ) as start_at
    from entries
),

journeys as (
    select
        flow_metric_id,
        report_version,
        source_system,
        project_id,
        start_at,
        min(case when is_end and entered_at >= start_at then entered_at end) as end_at,
        min(case when is_end and entered_at >= start_at then working_seconds_before end)
        - min(case when is_start then working_seconds_before end) as working_seconds
    from begun
    group by
        flow_metric_id,
        report_version,
        source_system,
        project_id,
        entity_type,
        entity_key,
        start_at
),

todays as (
    select
        source_system,
        project_id,
        timezone,
        {{ date_of_day(local_day(as_of(), 'timezone')) }} as today
    from {{ ref('stg_projects') }}
),

ended as (
    select
        journeys.flow_metric_id,
        journeys.report_version,
        {{ plausible_second('journeys.end_at') }} - {{ plausible_second('journeys.start_at') }}
            as seconds,
        case
            when not {{ is_implausible('journeys.start_at') }} then journeys.working_seconds
        end as working_seconds,
        {{ date_of_day(local_day('journeys.end_at', 'todays.timezone')) }}
            as end_date,
        todays.today
    from journeys
    inner join todays
        on
            journeys.source_system = todays.source_system
            and journeys.project_id = todays.project_id
    where not {{ is_implausible('journeys.end_at') }}
),

-- A period begins on the day after the first of these, and the one before it ends with it.
ended_in_periods as (
    select
        ended.*,
        periods.period,
        ended.end_date
        > {{ date_before('ended.today', 'periods.months', 'periods.days') }} as is_now
    from ended
    inner join periods
        on
            ended.end_date <= ended.today
            and ended.end_date
            > {{ date_before('ended.today', '2 * periods.months', '2 * periods.days') }}
),

measured as (
    select
        flow_metric_id,
        report_version,
        period,
        is_now,
        count(seconds) as deals,
        {%- for clock in clocks %}
        avg({{ clock }}) as mean_{{ clock }},
        min({{ clock }}) as best_{{ clock }},
        max({{ clock }}) as worst_{{ clock }},
        {%- for share in [50, 85, 95] %}
        {{ percentile_seconds(share / 100, clock) }} as p{{ share }}_{{ clock }},
        {%- endfor %}
        {%- endfor %}
        count(*) - count(seconds) as impossible_durations
    from ended_in_periods
    group by
        flow_metric_id,
        report_version,
        period,
        is_now
),

joined as (
    select
        metric_versions.flow_metric_id,
        metric_versions.report_version,
        metric_versions.source_system,
        metric_versions.project_id,
        periods.period,
        metric_versions.title,
        metric_versions.comment,
        metric_versions.is_working_time,
        metric_versions.position,
        metric_versions.green_limit_seconds,
        metric_versions.red_limit_seconds,
        coalesce(this.deals, 0) as deals,
        coalesce(this.impossible_durations, 0) as impossible_durations,
        {%- for clock in clocks %}
        cast(round(this.mean_{{ clock }}, 0) as bigint) as avg_{{ clock }},
        cast(this.best_{{ clock }} as bigint) as best_{{ clock }},
        cast(this.worst_{{ clock }} as bigint) as worst_{{ clock }},
        {%- for share in [50, 85, 95] %}
        this.p{{ share }}_{{ clock }},
        {%- endfor %}
        cast(round(before.mean_{{ clock }}, 0) as bigint) as before_avg_{{ clock }},
        {%- endfor %}
        {%- for side in ['this', 'before'] %}
        case
            when metric_versions.is_working_time then {{ side }}.mean_working_seconds
            else {{ side }}.mean_seconds
        end as {{ side }}_mean,
        {%- endfor %}
        coalesce(before.deals, 0) as before_deals
    from metric_versions
    cross join periods
    left join measured as this
        on
            metric_versions.flow_metric_id = this.flow_metric_id
            and metric_versions.report_version = this.report_version
            and periods.period = this.period
            and this.is_now
    left join measured as before
        on
            metric_versions.flow_metric_id = before.flow_metric_id
            and metric_versions.report_version = before.report_version
            and periods.period = before.period
            and not before.is_now
),

final as (
    select
        flow_metric_id,
        report_version,
        period,
        source_system,
        project_id,
        title,
        comment,
        case
            when this_mean <= coalesce(green_limit_seconds, red_limit_seconds) then 'green'
            when this_mean > coalesce(red_limit_seconds, green_limit_seconds) then 'red'
            when this_mean is not null and green_limit_seconds is not null then 'amber'
        end as colour,
        is_working_time,
        position,
        deals,
        impossible_durations,
        before_deals,
        {%- for clock in clocks %}
        avg_{{ clock }},
        best_{{ clock }},
        worst_{{ clock }},
        p50_{{ clock }},
        p85_{{ clock }},
        p95_{{ clock }},
        before_avg_{{ clock }},
        {%- endfor %}
        green_limit_seconds,
        red_limit_seconds,
        {{ pct('(this_mean - before_mean)', 'before_mean') }} as trend_pct,
        {{ built_at() }} as updated_at
    from joined
)

select * from final
