with

versions as (
    select * from {{ ref('int_opportunity_versions') }}
    where valid_from <= {{ as_of() }}
),

pipeline as (
    select * from {{ ref('pipeline_as_of') }}
),

projects as (
    select * from {{ ref('stg_projects') }}
),

-- Versions of one opportunity that follow each other in one stage are one stay.
compared as (
    select
        versions.*,
        coalesce(stage, '') != coalesce(lag(stage) over in_order, '') as is_other_stage
    from versions
    where status = 'open'
    window in_order as (
        partition by opportunity_key
        order by version_number
    )
),

numbered as (
    select
        compared.*,
        sum({{ flag('is_other_stage') }}) over (
            partition by opportunity_key
            order by version_number
            rows between unbounded preceding and current row
        ) as stay_number
    from compared
),

stays as (
    select
        opportunity_key,
        source_system,
        project_id,
        stage,
        stay_number,
        min(valid_from) as entered_at,
        max(coalesce(valid_to, {{ as_of() }})) as left_at
    from numbered
    group by
        opportunity_key,
        source_system,
        project_id,
        stage,
        stay_number
),

stages_of_won_deals as (
    select
        stays.source_system,
        stays.project_id,
        stays.stage,
        stays.opportunity_key,
        sum({{ seconds_between('stays.entered_at', 'stays.left_at') }}) as seconds_in_stage
    from stays
    inner join pipeline on stays.opportunity_key = pipeline.opportunity_key
    where pipeline.status = 'won'
    group by
        stays.source_system,
        stays.project_id,
        stays.stage,
        stays.opportunity_key
),

usual as (
    select
        source_system,
        project_id,
        stage,
        count(*) as won_opportunities,
        {{ percentile_seconds(0.85, 'seconds_in_stage') }} as p85_seconds_in_stage
    from stages_of_won_deals
    group by
        source_system,
        project_id,
        stage
),

last_stays as (
    select
        stays.*,
        row_number() over (
            partition by opportunity_key order by stay_number desc
        ) as place_from_end
    from stays
),

measured as (
    select
        pipeline.*,
        last_stays.entered_at as stage_entered_at,
        {{ seconds_between('last_stays.entered_at', as_of()) }} as seconds_in_stage,
        usual.p85_seconds_in_stage,
        coalesce(usual.won_opportunities, 0) as won_opportunities,
        cast({{ weekdays_between(
            local_day('pipeline.unchanged_since', "coalesce(projects.timezone, 'UTC')"),
            local_day(as_of(), "coalesce(projects.timezone, 'UTC')")
        ) }} as integer) as idle_weekdays
    from pipeline
    inner join last_stays
        on
            pipeline.opportunity_key = last_stays.opportunity_key
            and last_stays.place_from_end = 1
    left join usual
        on
            pipeline.source_system = usual.source_system
            and pipeline.project_id = usual.project_id
            and pipeline.stage = usual.stage
    left join projects
        on
            pipeline.source_system = projects.source_system
            and pipeline.project_id = projects.project_id
    where pipeline.status = 'open'
),

judged as (
    select
        measured.*,
        coalesce(seconds_in_stage > p85_seconds_in_stage, false) as is_slow,
        idle_weekdays >= {{ var('stalled_after_weekdays') }} as is_idle
    from measured
),

final as (
    select
        opportunity_key,
        source_system,
        project_id,
        opportunity_id,
        opportunity_name,
        company,
        facility_id,
        rep_id,
        stage,
        currency,
        record_origin,
        {{ flag('is_slow') }} as is_slow,
        {{ flag('is_idle') }} as is_idle,
        amount,
        expected_amount,
        seconds_in_stage,
        p85_seconds_in_stage,
        won_opportunities,
        idle_weekdays,
        expected_close_date,
        stage_entered_at,
        unchanged_since,
        {{ built_at() }} as updated_at
    from judged
    where is_slow or is_idle
)

select * from final
