{{ config(
    materialized=flow_materialized(),
    incremental_strategy='by_entity',
    on_schema_change='append_new_columns',
    meta={
        'touches': [
            {
                'at': 'started_at',
                'by': ['report_version', 'coalesce(' ~ is_implausible('finished_at') ~ ', false)'],
            },
            {
                'at': 'finished_at',
                'by': [
                    'report_version', 'started_at', 'age_at_finish_seconds',
                    'age_at_finish_working_seconds',
                ],
            },
        ],
    },
    post_hook=['{{ gather_statistics(this) }}', '{{ remember_flow_position() }}'],
) }}

with

timeline as (
    select * from {{ ref('deal_stage_timeline') }}
    {{ where_changed() }}
),

durations as (
    select * from {{ ref('major_stage_durations') }}
    {{ where_changed() }}
),

majors as (
    select * from {{ ref('canonical_major_stages') }}
),

substages as (
    select * from {{ ref('canonical_substages') }}
),

ends_of_lifecycle as (
    select
        min(sort_order) as first_order,
        max(sort_order) as last_order
    from majors
),

major_spans as (
    select
        durations.*,
        durations.age_at_entry_seconds + durations.duration_seconds as exit_age,
        durations.age_at_entry_working_seconds + durations.duration_working_seconds
            as working_exit_age,
        majors.sort_order = ends_of_lifecycle.first_order as is_first,
        majors.sort_order = ends_of_lifecycle.last_order as is_last
    from durations
    inner join majors on durations.major_key = majors.major_key
    cross join ends_of_lifecycle
),

journeys as (
    select
        report_version,
        source_system,
        project_id,
        entity_type,
        entity_id,
        max(entry_at) filter (where is_first) as first_entry_at,
        max(exit_at) filter (where is_last) as last_exit_at,
        max(age_at_entry_seconds) filter (where is_first) as first_age,
        max(age_at_entry_working_seconds) filter (where is_first) as working_first_age,
        max(exit_age) filter (where is_last) as last_age,
        max(working_exit_age) filter (where is_last) as working_last_age,
        count(duration_seconds) as finished_stages,
        sum(duration_seconds) as total_stage_seconds,
        sum(duration_working_seconds) as total_stage_working_seconds
    from major_spans
    group by
        report_version,
        source_system,
        project_id,
        entity_type,
        entity_id
),

clipped_spans as (
    select
        major_spans.report_version,
        major_spans.source_system,
        major_spans.project_id,
        major_spans.entity_type,
        major_spans.entity_id,
        greatest(major_spans.age_at_entry_seconds, journeys.first_age) as from_age,
        least(major_spans.exit_age, journeys.last_age) as to_age,
        greatest(major_spans.age_at_entry_working_seconds, journeys.working_first_age)
            as working_from_age,
        least(major_spans.working_exit_age, journeys.working_last_age) as working_to_age
    from major_spans
    inner join journeys
        on
            major_spans.report_version = journeys.report_version
            and major_spans.source_system = journeys.source_system
            and major_spans.project_id = journeys.project_id
            and major_spans.entity_type = journeys.entity_type
            and major_spans.entity_id = journeys.entity_id
            and journeys.first_age <= journeys.last_age
    where major_spans.duration_seconds is not null
),

-- Of each span what no earlier one has covered.
uncovered_spans as (
    select
        clipped_spans.*,
        coalesce(max(to_age) over earlier, from_age) as covered_to,
        coalesce(max(working_to_age) over earlier, working_from_age) as working_covered_to
    from clipped_spans
    window earlier as (
        partition by report_version, source_system, project_id, entity_type, entity_id
        order by from_age, to_age
        rows between unbounded preceding and 1 preceding
    )
),

coverage as (
    select
        report_version,
        source_system,
        project_id,
        entity_type,
        entity_id,
        sum(greatest(to_age - greatest(from_age, covered_to), 0)) as covered_seconds,
        sum(greatest(working_to_age - greatest(working_from_age, working_covered_to), 0))
            as covered_working_seconds
    from uncovered_spans
    group by
        report_version,
        source_system,
        project_id,
        entity_type,
        entity_id
),

entities as (
    select
        timeline.report_version,
        timeline.source_system,
        timeline.project_id,
        timeline.entity_type,
        timeline.entity_id,
        count(*) as visits,
        count(*) filter (where timeline.sub_key is null) as unmapped_visits,
        min(timeline.entered_at) as started_at,
        min(timeline.entered_at) filter (where timeline.group_kind != 'open') as ended_at,
        min(timeline.age_seconds) filter (where timeline.group_kind != 'open') as age_at_end,
        min(timeline.age_working_seconds) filter (where timeline.group_kind != 'open')
            as working_age_at_end,
        coalesce(sum(timeline.working_seconds) filter (
            where
            substages.is_active_work
            and timeline.entered_at >= journeys.first_entry_at
            and timeline.entered_at < journeys.last_exit_at
        ), 0) as active_working_seconds
    from timeline
    left join substages on timeline.sub_key = substages.sub_key
    left join journeys
        on
            timeline.report_version = journeys.report_version
            and timeline.source_system = journeys.source_system
            and timeline.project_id = journeys.project_id
            and timeline.entity_type = journeys.entity_type
            and timeline.entity_id = journeys.entity_id
    group by
        timeline.report_version,
        timeline.source_system,
        timeline.project_id,
        timeline.entity_type,
        timeline.entity_id
),

joined as (
    select
        entities.*,
        journeys.first_entry_at,
        journeys.last_exit_at,
        coalesce(journeys.finished_stages, 0) as finished_stages,
        journeys.total_stage_seconds,
        journeys.total_stage_working_seconds,
        coverage.covered_seconds,
        coverage.covered_working_seconds,
        case
            when journeys.first_entry_at is null or journeys.last_exit_at is null
                then 'not complete'
            when coverage.covered_seconds is null then 'impossible duration'
        end as excluded_reason,
        journeys.last_age - journeys.first_age as raw_e2e,
        journeys.working_last_age - journeys.working_first_age as raw_working_e2e,
        least(entities.ended_at, journeys.last_exit_at) as finished_at,
        least(entities.age_at_end, journeys.last_age) as age_at_finish,
        least(entities.working_age_at_end, journeys.working_last_age) as working_age_at_finish
    from entities
    left join journeys
        on
            entities.report_version = journeys.report_version
            and entities.source_system = journeys.source_system
            and entities.project_id = journeys.project_id
            and entities.entity_type = journeys.entity_type
            and entities.entity_id = journeys.entity_id
    left join coverage
        on
            entities.report_version = coverage.report_version
            and entities.source_system = coverage.source_system
            and entities.project_id = coverage.project_id
            and entities.entity_type = coverage.entity_type
            and entities.entity_id = coverage.entity_id
),

judged as (
    select
        joined.*,
        {{ is_implausible('started_at') }}
        or coalesce({{ is_implausible('finished_at') }}, false) as is_impossible
    from joined
),

final as (
    select
        report_version,
        source_system,
        project_id,
        entity_type,
        entity_id,
        excluded_reason,
        visits,
        unmapped_visits,
        finished_stages,
        first_entry_at is not null and last_exit_at is not null as is_complete,
        case when excluded_reason is null then raw_e2e end as e2e_seconds,
        case when excluded_reason is null then raw_working_e2e end as e2e_working_seconds,
        cast(total_stage_seconds as bigint) as total_stage_seconds,
        cast(total_stage_working_seconds as bigint) as total_stage_working_seconds,
        cast(covered_seconds as bigint) as covered_seconds,
        cast(covered_working_seconds as bigint) as covered_working_seconds,
        case when excluded_reason is null then cast(active_working_seconds as bigint) end
            as active_working_seconds,
        case when excluded_reason is null then {{ pct('total_stage_seconds', 'raw_e2e') }} end
            as flow_efficiency_pct,
        case when excluded_reason is null then {{ pct('covered_seconds', 'raw_e2e') }} end
            as covered_pct,
        case
            when excluded_reason is null
                then {{ pct('active_working_seconds', 'raw_working_e2e') }}
        end as active_pct,
        case when not is_impossible then age_at_finish end as age_at_finish_seconds,
        case when not is_impossible then working_age_at_finish end
            as age_at_finish_working_seconds,
        started_at,
        finished_at,
        first_entry_at,
        last_exit_at,
        {{ built_at() }} as updated_at
    from judged
)

select * from final
