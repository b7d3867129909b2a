with

rules as (
    select * from {{ ref('alert_rules') }}
),

stated as (
    select * from {{ ref('base_settings__alert_thresholds') }}
),

projects as (
    select * from {{ ref('int_alert_projects') }}
),

final as (
    select
        projects.source_system,
        projects.project_id,
        rules.rule,
        rules.alert,
        rules.priority,
        coalesce(stated.threshold, rules.threshold) as threshold
    from projects
    cross join rules
    left join stated
        on
            projects.source_system = stated.source_system
            and projects.project_id = stated.project_id
            and rules.rule = stated.rule
            and {{ local_day(as_of(), 'projects.timezone') }}
            >= {{ day_of_date('stated.effective_from') }}
            and (
                stated.effective_to is null
                or {{ local_day(as_of(), 'projects.timezone') }}
                < {{ day_of_date('stated.effective_to') }}
            )
)

select * from final
