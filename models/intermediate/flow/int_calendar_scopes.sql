with

calendars as (
    select * from {{ ref('base_settings__calendars') }}
),

projects as (
    select * from {{ ref('stg_projects') }}
),

final as (
    select
        calendars.source_system,
        calendars.project_id,
        calendars.stage_group_id,
        projects.timezone,
        min(calendars.calendar_id) as calendar_scope_id
    from calendars
    inner join projects
        on
            calendars.source_system = projects.source_system
            and calendars.project_id = projects.project_id
    group by
        calendars.source_system,
        calendars.project_id,
        calendars.stage_group_id,
        projects.timezone
)

select * from final
