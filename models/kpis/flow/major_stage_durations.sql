{{ config(
    materialized=flow_materialized(),
    incremental_strategy='by_entity',
    on_schema_change='append_new_columns',
    meta={'touches': [{'at': 'entry_at', 'by': ['report_version', 'major_key']}]},
    post_hook=['{{ gather_statistics(this) }}', '{{ remember_flow_position() }}'],
) }}

with

timeline as (
    select * from {{ ref('deal_stage_timeline') }}
    {{ where_changed() }}
),

visits as (
    select
        timeline.*,
        lag(sub_key) over (
            partition by report_version, source_system, project_id, entity_type, entity_id
            order by visit_number
        ) as previous_sub_key
    from timeline
),

ends as (
    select
        visits.*,
        coalesce(previous_sub_key, '') != sub_key as is_arrival,
        min(case when is_entry then entered_at end) over (
            partition by
                report_version, source_system, project_id, entity_type, entity_id, major_key
        ) as entry_at
    from visits
    where is_entry or is_exit
),

-- Age never falls from visit to visit: that of the first one is the least.
spans as (
    select
        report_version,
        source_system,
        project_id,
        entity_type,
        entity_id,
        major_key,
        min(entry_at) as entry_at,
        min(entered_at) filter (where is_exit and entered_at >= entry_at) as exit_at,
        count(*) filter (where is_entry and is_arrival) as entry_count,
        min(age_seconds) filter (where is_entry and entered_at = entry_at) as entry_age,
        min(age_working_seconds) filter (where is_entry and entered_at = entry_at)
            as working_entry_age,
        min(age_seconds) filter (where is_exit and entered_at >= entry_at) as exit_age,
        min(age_working_seconds) filter (where is_exit and entered_at >= entry_at)
            as working_exit_age
    from ends
    where entry_at is not null
    group by
        report_version,
        source_system,
        project_id,
        entity_type,
        entity_id,
        major_key
),

judged as (
    select
        spans.*,
        case
            when {{ is_implausible('entry_at') }} or {{ is_implausible('exit_at') }}
                then 'impossible duration'
            when exit_at is null then 'open'
        end as excluded_reason
    from spans
),

final as (
    select
        report_version,
        source_system,
        project_id,
        entity_type,
        entity_id,
        major_key,
        excluded_reason,
        entry_count,
        entry_age as age_at_entry_seconds,
        working_entry_age as age_at_entry_working_seconds,
        case when excluded_reason is null then exit_age - entry_age end as duration_seconds,
        case when excluded_reason is null then working_exit_age - working_entry_age end
            as duration_working_seconds,
        entry_at,
        exit_at,
        {{ built_at() }} as updated_at
    from judged
)

select * from final
