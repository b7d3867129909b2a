with

cases as (
    select * from {{ source('raw_salesforce', 'cases') }}
),

history as (
    select * from {{ source('raw_salesforce', 'case_history') }}
),

statuses as (
    select * from {{ source('raw_salesforce', 'case_statuses') }}
),

waiting_stages as (
    select * from {{ ref('base_settings__waiting_stages') }}
    where source_system = 'salesforce'
),

changes as (
    select
        project_id,
        case_id,
        old_value,
        new_value,
        created_at,
        -- Instants are whole seconds; ids are given in order.
        row_number() over (
            partition by project_id, case_id
            order by created_at, {{ by_bytes('history_id') }}
        ) as place
    from history
    where field = 'Status' and case_id is not null and created_at is not null
),

-- What the first change left is what the case began with.
entries as (
    select
        project_id,
        case_id,
        place,
        new_value as status,
        created_at as entered_at
    from changes
    union all
    select
        changes.project_id,
        changes.case_id,
        0 as place,
        changes.old_value as status,
        case
            when cases.created_at < changes.created_at then cases.created_at
            else changes.created_at
        end as entered_at
    from changes
    left join cases
        on
            changes.project_id = cases.project_id
            and changes.case_id = cases.case_id
    where changes.place = 1
),

visits as (
    select
        entries.*,
        lead(entered_at) over (partition by project_id, case_id order by place) as left_at
    from entries
),

final as (
    select
        cast('salesforce' as {{ type_label() }}) as source_system,
        visits.project_id,
        visits.case_id,
        cast(visits.place as bigint) as sequence,
        visits.status,
        coalesce(statuses.is_closed, false) as is_closed,
        waiting_stages.waiting_stage_id is not null as is_waiting,
        visits.entered_at,
        visits.left_at
    from visits
    left join statuses
        on
            visits.project_id = statuses.project_id
            and visits.status = statuses.status_name
    left join waiting_stages
        on
            visits.project_id = waiting_stages.project_id
            and visits.status = waiting_stages.stage_id
            and {{ in_force('waiting_stages', 'visits.entered_at') }}
)

select * from final
