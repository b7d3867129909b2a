{%- set majors = ['lead', 'quote', 'order', 'procurement', 'mfg', 'delivery', 'payment'] -%}
{%- set shares = [50, 70, 85, 95] -%}
{#- Days that arrivals, departures and work in progress are held against each other over. -#}
{%- set balance_days = 90 -%}

with

deals as (
    select * from {{ ref('deal_metrics') }}
),

durations as (
    select * from {{ ref('major_stage_durations') }}
),

projects as (
    select * from {{ ref('stg_projects') }}
),

entities as (
    select
        deals.*,
        coalesce(projects.timezone, 'UTC') as timezone,
        {{ epoch_second('deals.started_at') }} as start_second,
        {{ epoch_second('deals.finished_at') }} as finish_second,
        {{ is_implausible('deals.started_at') }}
        or coalesce({{ is_implausible('deals.finished_at') }}, false) as is_impossible
    from deals
    left join projects
        on
            deals.source_system = projects.source_system
            and deals.project_id = projects.project_id
),

moves as (
    select
        report_version,
        source_system,
        project_id,
        timezone,
        {{ local_day('start_second', 'timezone') }} as day,
        1 as started,
        0 as finished,
        start_second,
        cast(null as bigint) as finish_second,
        cast(null as bigint) as age_seconds,
        cast(null as bigint) as age_working_seconds
    from entities
    where not is_impossible
    union all
    select
        report_version,
        source_system,
        project_id,
        timezone,
        {{ local_day('finish_second', 'timezone') }} as day,
        0 as started,
        1 as finished,
        start_second,
        finish_second,
        age_at_finish_seconds as age_seconds,
        age_at_finish_working_seconds as age_working_seconds
    from entities
    where not is_impossible and finish_second is not null
),

moves_of_days as (
    select
        report_version,
        source_system,
        project_id,
        sum(started) as started,
        sum(finished) as finished,
        sum(case when started = 1 then start_second else 0 end) as sum_of_starts,
        sum(case when finished = 1 then finish_second else 0 end) as sum_of_finishes,
        sum(case when finished = 1 then start_second else 0 end) as sum_of_finished_starts,
        avg(age_seconds) as mean_age_seconds,
        avg(age_working_seconds) as mean_age_working_seconds,
        {%- for share in shares %}
        {{ percentile_seconds(share / 100, 'age_seconds') }} as p{{ share }}_age_seconds,
        {{ percentile_seconds(share / 100, 'age_working_seconds') }}
            as p{{ share }}_age_working_seconds,
        {%- endfor %}
        day
    from moves
    group by
        report_version,
        source_system,
        project_id,
        day
),

impossible_entities as (
    select * from entities
    where is_impossible
),

stage_entries as (
    select
        durations.report_version,
        durations.source_system,
        durations.project_id,
        {%- for major in majors %}
        {{ flag("durations.major_key = '" ~ major | upper ~ "'") }} as entered_{{ major }},
        {%- endfor %}
        {{ local_day(epoch_second('durations.entry_at'), "coalesce(projects.timezone, 'UTC')") }}
            as day
    from durations
    left join projects
        on
            durations.source_system = projects.source_system
            and durations.project_id = projects.project_id
    left join impossible_entities
        on
            durations.report_version = impossible_entities.report_version
            and durations.source_system = impossible_entities.source_system
            and durations.project_id = impossible_entities.project_id
            and durations.entity_type = impossible_entities.entity_type
            and durations.entity_id = impossible_entities.entity_id
    where
        impossible_entities.entity_id is null
        and not {{ is_implausible('durations.entry_at') }}
),

stage_entries_of_days as (
    select
        report_version,
        source_system,
        project_id,
        {%- for major in majors %}
        sum(entered_{{ major }}) as entered_{{ major }},
        {%- endfor %}
        day
    from stage_entries
    group by
        report_version,
        source_system,
        project_id,
        day
),

impossible_of_projects as (
    select
        report_version,
        source_system,
        project_id,
        count(*) as impossible_durations
    from impossible_entities
    group by report_version, source_system, project_id
),

first_days as (
    select
        report_version,
        source_system,
        project_id,
        timezone,
        min(day) as first_day,
        {{ local_day(epoch_second(as_of()), 'timezone') }} as last_day
    from moves
    group by
        report_version,
        source_system,
        project_id,
        timezone
),

-- Plausible instants lie within these years; one day more on either end for the zones.
numbers as (
    select 10956 + n as day from ({{ whole_numbers(36526) }}) as numbers
),

days as (
    select
        first_days.report_version,
        first_days.source_system,
        first_days.project_id,
        first_days.last_day,
        numbers.day,
        {{ first_second_of_day('numbers.day', 'first_days.timezone') }} as first_second,
        {{ first_second_of_day('(numbers.day + 1)', 'first_days.timezone') }} as next_second
    from first_days
    inner join numbers
        on
            first_days.first_day <= numbers.day
            and first_days.last_day >= numbers.day
),

filled as (
    select
        days.report_version,
        days.source_system,
        days.project_id,
        days.day,
        days.first_second,
        case
            when days.day = days.last_day then {{ epoch_second(as_of()) }} else days.next_second
        end as end_second,
        coalesce(moves_of_days.started, 0) as started,
        coalesce(moves_of_days.finished, 0) as finished,
        coalesce(moves_of_days.sum_of_starts, 0) as sum_of_starts,
        coalesce(moves_of_days.sum_of_finishes, 0) as sum_of_finishes,
        coalesce(moves_of_days.sum_of_finished_starts, 0) as sum_of_finished_starts,
        {%- for major in majors %}
        coalesce(stage_entries_of_days.entered_{{ major }}, 0) as entered_{{ major }},
        {%- endfor %}
        {%- for share in shares %}
        moves_of_days.p{{ share }}_age_seconds,
        moves_of_days.p{{ share }}_age_working_seconds,
        {%- endfor %}
        moves_of_days.mean_age_seconds,
        moves_of_days.mean_age_working_seconds
    from days
    left join moves_of_days
        on
            days.report_version = moves_of_days.report_version
            and days.source_system = moves_of_days.source_system
            and days.project_id = moves_of_days.project_id
            and days.day = moves_of_days.day
    left join stage_entries_of_days
        on
            days.report_version = stage_entries_of_days.report_version
            and days.source_system = stage_entries_of_days.source_system
            and days.project_id = stage_entries_of_days.project_id
            and days.day = stage_entries_of_days.day
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
