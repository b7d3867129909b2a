{{ config(materialized='view') }}

with

durations as (
    select * from {{ ref('major_stage_durations') }}
    where exit_at is not null
),

projects as (
    select * from {{ ref('stg_projects') }}
),

periods as (
    select * from {{ ref('flow_periods') }}
),

exits as (
    select
        durations.*,
        {{ date_of_day(local_day('durations.exit_at', 'projects.timezone')) }}
            as exit_date,
        {{ date_of_day(local_day(as_of(), 'projects.timezone')) }} as today
    from durations
    inner join projects
        on
            durations.source_system = projects.source_system
            and durations.project_id = projects.project_id
    where not {{ is_implausible('durations.exit_at') }}
),

final as (
    select
        exits.report_version,
        exits.source_system,
        exits.project_id,
        exits.entity_type,
        exits.entity_id,
        exits.major_key,
        periods.period,
        exits.excluded_reason,
        exits.exit_date <= {{ date_before('exits.today', 'periods.months', 'periods.days') }}
            as is_before,
        exits.exit_date,
        exits.duration_seconds,
        exits.duration_working_seconds,
        exits.age_at_entry_seconds + exits.duration_seconds as age_at_exit_seconds,
        exits.age_at_entry_working_seconds + exits.duration_working_seconds
            as age_at_exit_working_seconds,
        exits.updated_at
    from exits
    inner join periods
        on
            exits.exit_date <= exits.today
            and exits.exit_date
            > {{ date_before('exits.today', '2 * periods.months', '2 * periods.days') }}
)

select * from final
