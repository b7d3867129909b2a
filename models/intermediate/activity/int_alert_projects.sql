{{ config(materialized='table') }}

with

projects as (
    select * from {{ ref('stg_projects') }}
),

-- Projects that data alone tell of count as well.
told_of as (
    select
        source_system,
        project_id
    from {{ ref('int_work_days') }}
    union distinct
    select
        source_system,
        project_id
    from {{ ref('int_opportunity_versions') }}
    union distinct
    select
        source_system,
        project_id
    from {{ ref('unmapped_stage_events') }}
),

final as (
    select
        source_system,
        project_id,
        project_name,
        timezone
    from projects
    where is_active
    union all
    select
        told_of.source_system,
        told_of.project_id,
        cast(null as {{ type_label() }}) as project_name,
        'UTC' as timezone
    from told_of
    left join projects
        on
            told_of.source_system = projects.source_system
            and told_of.project_id = projects.project_id
    where projects.project_id is null
)

select * from final
