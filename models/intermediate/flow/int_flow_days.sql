{{ config(
    materialized=flow_materialized(),
    incremental_strategy='by_period',
    on_schema_change='append_new_columns',
    post_hook=['{{ gather_statistics(this) }}', '{{ remember_flow_position() }}', '{{ forget_touched() }}'],
) }}

{%- set majors = ['lead', 'quote', 'order', 'procurement', 'mfg', 'delivery', 'payment'] -%}
{%- set shares = [50, 70, 85, 95] -%}

with

projects as (
    {{ projects_to_build() }}
),

-- The others count on no day that is kept; impossible ones are needed, to leave out their stages.
deals as (
    select * from {{ ref('deal_metrics') }}
    where
        started_at >= (select min(projects.read_since) from projects)
        or finished_at >= (select min(projects.read_since) from projects)
        or {{ is_implausible('started_at') }}
        or {{ is_implausible('finished_at') }}
),

durations as (
    select * from {{ ref('major_stage_durations') }}
    where entry_at >= (select min(projects.read_since) from projects)
),

entities as (
    select
        deals.report_version,
        deals.source_system,
        deals.project_id,
        deals.entity_type,
        deals.entity_id,
        deals.started_at,
        deals.finished_at,
        deals.age_at_finish_seconds,
        deals.age_at_finish_working_seconds,
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
        {{ local_day('started_at', 'timezone') }} as day,
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
        {{ local_day('finished_at', 'timezone') }} as day,
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
        {{ local_day('durations.entry_at', "coalesce(projects.timezone, 'UTC')") }}
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

days as (
    select
        report_version,
        source_system,
        project_id,
        day
    from moves_of_days
    union
    select
        report_version,
        source_system,
        project_id,
        day
    from stage_entries_of_days
),

final as (
    select
        days.report_version,
        days.source_system,
        days.project_id,
        days.day,
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
    left join projects
        on
            days.source_system = projects.source_system
            and days.project_id = projects.project_id
    where
        projects.since is null
        or days.day >= {{ local_day('projects.since', 'projects.timezone') }}
)

select * from final
