{%- set clocks = ['seconds', 'working_seconds'] -%}

with

periods as (
    select * from {{ ref('flow_periods') }}
),

-- Not earlier than any period before the present one may begin, in any zone.
durations as (
    select * from {{ ref('major_stage_durations') }}
    where
        exit_at > (
            select
                {{ instant_of_second(
                    epoch_second(as_of())
                    ~ ' - (max(2 * (31 * periods.months + periods.days)) + 2) * 86400'
                ) }}
            from periods
        )
),

projects as (
    select * from {{ ref('stg_projects') }}
),

majors as (
    select * from {{ ref('canonical_major_stages') }}
),

versions as (
    select * from {{ ref('base_settings__report_versions') }}
    where state = 'published'
),

todays as (
    select
        source_system,
        project_id,
        timezone,
        {{ date_of_day(local_day(as_of(), 'timezone')) }} as today
    from projects
),

-- A period begins on the day after this one, and the one before it ends with it.
project_periods as (
    select
        todays.source_system,
        todays.project_id,
        todays.timezone,
        todays.today,
        periods.period,
        {{ date_before('todays.today', 'periods.months', 'periods.days') }} as day_before,
        {{ date_before('todays.today', '2 * periods.months', '2 * periods.days') }}
            as day_before_last
    from todays
    cross join periods
),

exits as (
    select
        durations.report_version,
        durations.source_system,
        durations.project_id,
        durations.major_key,
        durations.excluded_reason,
        durations.duration_seconds as seconds,
        durations.duration_working_seconds as working_seconds,
        durations.age_at_entry_seconds + durations.duration_seconds as age_seconds,
        durations.age_at_entry_working_seconds + durations.duration_working_seconds
            as age_working_seconds,
        {{ date_of_day(local_day('durations.exit_at', 'todays.timezone')) }}
            as exit_date
    from durations
    inner join todays
        on
            durations.source_system = todays.source_system
            and durations.project_id = todays.project_id
    where not {{ is_implausible('durations.exit_at') }}
    {{ computed_once() }}
),

exits_of_periods as (
    select
        exits.*,
        project_periods.period,
        exits.exit_date > project_periods.day_before as is_now
    from exits
    inner join project_periods
        on
            exits.source_system = project_periods.source_system
            and exits.project_id = project_periods.project_id
            and exits.exit_date > project_periods.day_before_last
            and exits.exit_date <= project_periods.today
),

measured as (
    select
        report_version,
        period,
        major_key,
        count(seconds) as deals,
        count(excluded_reason) as impossible_durations,
        {%- for clock in clocks %}
        avg({{ clock }}) as mean_{{ clock }},
        min({{ clock }}) as best_{{ clock }},
        max({{ clock }}) as worst_{{ clock }},
        {%- for share in [50, 85, 95] %}
        {{ percentile_seconds(share / 100, clock) }} as p{{ share }}_{{ clock }},
        {%- endfor %}
        {%- for share in [50, 70, 85, 95] %}
        {{ percentile_seconds(share / 100, 'age_' ~ clock) }} as p{{ share }}_age_{{ clock }},
        {%- endfor %}
        {%- endfor %}
        is_now
    from exits_of_periods
    group by
        report_version,
        period,
        major_key,
        is_now
),

final as (
    select
        versions.report_version,
        periods.period,
        majors.major_key,
        coalesce(this.deals, 0) as deals,
        coalesce(this.impossible_durations, 0) as impossible_durations,
        coalesce(before.deals, 0) as before_deals,
        coalesce(before.impossible_durations, 0) as before_impossible_durations,
        {%- for clock in clocks %}
        cast(round(this.mean_{{ clock }}, 0) as bigint) as avg_{{ clock }},
        this.best_{{ clock }},
        this.worst_{{ clock }},
        {%- for share in [50, 85, 95] %}
        this.p{{ share }}_{{ clock }},
        {%- endfor %}
        {%- for share in [50, 70, 85, 95] %}
        this.p{{ share }}_age_{{ clock }} as p{{ share }}_age_at_exit_{{ clock }},
        {%- endfor %}
        cast(round(before.mean_{{ clock }}, 0) as bigint) as before_avg_{{ clock }},
        before.best_{{ clock }} as before_best_{{ clock }},
        before.worst_{{ clock }} as before_worst_{{ clock }},
        {%- for share in [50, 85, 95] %}
        before.p{{ share }}_{{ clock }} as before_p{{ share }}_{{ clock }},
        {%- endfor %}
        {%- endfor %}
        {{ pct('(this.mean_seconds - before.mean_seconds)', 'before.mean_seconds') }}
            as trend_pct,
        {{ pct(
            '(this.mean_working_seconds - before.mean_working_seconds)',
            'before.mean_working_seconds'
        ) }} as working_trend_pct,
        {{ built_at() }} as updated_at
    from versions
    cross join periods
    cross join majors
    left join measured as this
        on
            versions.report_version = this.report_version
            and periods.period = this.period
            and majors.major_key = this.major_key
            and this.is_now
    left join measured as before
        on
            versions.report_version = before.report_version
            and periods.period = before.period
            and majors.major_key = before.major_key
            and not before.is_now
)

select * from final
