{%- set majors = ['lead', 'quote', 'order', 'procurement', 'mfg', 'delivery', 'payment'] -%}
{%- set shares = [50, 70, 85, 95] -%}
{#- Days that arrivals, departures and work in progress are held against each other over. -#}
{%- set balance_days = 90 -%}

with

flow_days as (
    select * from {{ ref('int_flow_days') }}
),

deals as (
    select * from {{ ref('deal_metrics') }}
),

projects as (
    select * from {{ ref('stg_projects') }}
),

impossible_of_projects as (
    select
        report_version,
        source_system,
        project_id,
        count(*) as impossible_durations
    from deals
    where
        {{ is_implausible('started_at') }}
        or {{ is_implausible('finished_at') }}
    group by report_version, source_system, project_id
),

first_days as (
    select
        flow_days.report_version,
        flow_days.source_system,
        flow_days.project_id,
        coalesce(projects.timezone, 'UTC') as timezone,
        min(flow_days.day) as first_day,
        {{ local_day(as_of(), "coalesce(projects.timezone, 'UTC')") }} as last_day
    from flow_days
    left join projects
        on
            flow_days.source_system = projects.source_system
            and flow_days.project_id = projects.project_id
    group by
        flow_days.report_version,
        flow_days.source_system,
        flow_days.project_id,
        projects.timezone
),

-- Plausible instants lie within these years; one day more on either end for the zones.
numbers as (
    select 10956 + n as day from ({{ whole_numbers(36526) }}) as numbers
),

first_seconds as (
    select
        first_days.report_version,
        first_days.source_system,
        first_days.project_id,
        numbers.day,
        {{ first_second_of_day('numbers.day', 'first_days.timezone') }} as first_second
    from first_days
    inner join numbers
        on
            first_days.first_day <= numbers.day
            and first_days.last_day >= numbers.day
    {{ computed_once() }}
),

-- The last day ends with the instant that the figures are made for.
days as (
    select
        first_seconds.*,
        coalesce(
            lead(first_second) over (
                partition by report_version, source_system, project_id
                order by day
            ),
            {{ epoch_second(as_of()) }}
        ) as end_second
    from first_seconds
),

filled as (
    select
        days.report_version,
        days.source_system,
        days.project_id,
        days.day,
        days.first_second,
        days.end_second,
        coalesce(flow_days.started, 0) as started,
        coalesce(flow_days.finished, 0) as finished,
        coalesce(flow_days.sum_of_starts, 0) as sum_of_starts,
        coalesce(flow_days.sum_of_finishes, 0) as sum_of_finishes,
        coalesce(flow_days.sum_of_finished_starts, 0) as sum_of_finished_starts,
        {%- for major in majors %}
        coalesce(flow_days.entered_{{ major }}, 0) as entered_{{ major }},
        {%- endfor %}
        {%- for share in shares %}
        flow_days.p{{ share }}_age_seconds,
        flow_days.p{{ share }}_age_working_seconds,
        {%- endfor %}
        flow_days.mean_age_seconds,
        flow_days.mean_age_working_seconds
    from days
    left join flow_days
        on
            days.report_version = flow_days.report_version
            and days.source_system = flow_days.source_system
            and days.project_id = flow_days.project_id
            and days.day = flow_days.day
),

accumulated as (
    select
        filled.*,
        {%- for major in majors %}
        sum(entered_{{ major }}) over so_far as all_{{ major }},
        {%- endfor %}
        sum(started) over so_far as all_started,
        sum(finished) over so_far as all_finished,
        sum(sum_of_starts - sum_of_finished_starts) over so_far as sum_of_open_starts
    from filled
    window so_far as (
        partition by report_version, source_system, project_id
        order by day
        rows between unbounded preceding and current row
    )
),

counted as (
    select
        accumulated.*,
        all_started - all_finished as wip,
        all_started - started - (all_finished - finished) as wip_before
    from accumulated
),

-- Who was there at the start of the day has all of it; who came has what is left of it, and who
-- went lacks what was.
lived as (
    select
        counted.*,
        cast(
            wip_before * (end_second - first_second)
            + started * end_second - sum_of_starts
            - (finished * end_second - sum_of_finishes)
            as bigint
        ) as wip_seconds
    from counted
),

-- Throughput x lead time is the time that those who left had spent, by day; over the same days,
-- work in progress is the time that all spent.
balanced as (
    select
        lived.*,
        sum(started) over recently as recently_started,
        sum(finished) over recently as recently_finished,
        sum(sum_of_finishes - sum_of_finished_starts) over recently as recent_lead_seconds,
        sum(wip_seconds) over recently as recent_wip_seconds
    from lived
    window recently as (
        partition by report_version, source_system, project_id
        order by day
        rows between {{ balance_days - 1 }} preceding and current row
    )
),

final as (
    select
        balanced.report_version,
        balanced.source_system,
        balanced.project_id,
        {{ date_of_day('balanced.day') }} as date_day,
        cast(balanced.started as bigint) as started,
        cast(balanced.finished as bigint) as finished,
        cast(balanced.wip as bigint) as wip,
        coalesce(impossible_of_projects.impossible_durations, 0) as impossible_durations,
        {%- for major in majors %}
        cast(balanced.all_{{ major }} as bigint) as cumulative_{{ major }},
        {%- endfor %}
        cast(balanced.all_started as bigint) as cumulative_started,
        cast(balanced.all_finished as bigint) as cumulative_finished,
        balanced.wip_seconds,
        cast({{ ratio(
            '(balanced.wip * balanced.end_second - balanced.sum_of_open_starts)', 'balanced.wip', 0
        ) }} as bigint) as avg_wip_age_seconds,
        {{ ratio('balanced.recently_started', 'balanced.recently_finished') }}
            as arrivals_per_departure,
        {{ pct(
            '(balanced.recent_lead_seconds - balanced.recent_wip_seconds)',
            'balanced.recent_wip_seconds'
        ) }} as balance_gap_pct,
        case
            when balanced.recently_finished > 0 and balanced.recent_wip_seconds > 0
                then
                    balanced.recently_started * 100 between
                    balanced.recently_finished * 80 and balanced.recently_finished * 125
                    and abs(balanced.recent_lead_seconds - balanced.recent_wip_seconds) * 5
                    <= balanced.recent_wip_seconds
        end as is_stable,
        {%- for clock in ['seconds', 'working_seconds'] %}
        cast(round(balanced.mean_age_{{ clock }}, 0) as bigint) as avg_age_at_finish_{{ clock }},
        {%- for share in shares %}
        balanced.p{{ share }}_age_{{ clock }} as p{{ share }}_age_at_finish_{{ clock }},
        {%- endfor %}
        {%- endfor %}
        {{ built_at() }} as updated_at
    from balanced
    left join impossible_of_projects
        on
            balanced.report_version = impossible_of_projects.report_version
            and balanced.source_system = impossible_of_projects.source_system
            and balanced.project_id = impossible_of_projects.project_id
)

select * from final
