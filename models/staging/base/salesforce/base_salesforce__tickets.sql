{%- set standard = {
    'AccountId': 'account_id',
    'CaseNumber': 'case_number',
    'MasterRecordId': 'master_record_id',
    'Origin': 'origin',
    'OwnerId': 'owner_id',
    'Priority': 'priority',
    'Status': 'status',
} %}

with

cases as (
    select * from {{ source('raw_salesforce', 'cases') }}
),

visits as (
    select * from {{ ref('base_salesforce__case_visits') }}
),

answers as (
    select * from {{ ref('base_salesforce__case_answers') }}
),

field_map as (
    select * from {{ ref('base_settings__field_map') }}
),

closings as (
    select
        project_id,
        case_id,
        min(entered_at) as first_closed_at,
        max(entered_at) as last_closed_at
    from visits
    where is_closed
    group by project_id, case_id
),

-- A case that is open has no date of its closing, and of one that was opened again the first one is
-- lost: both are in the history, where the organisation tracks the status.
resolved as (
    select
        cases.*,
        case
            when closings.first_closed_at < cases.closed_at then closings.first_closed_at
            else coalesce(cases.closed_at, closings.first_closed_at)
        end as first_resolved_at,
        coalesce(cases.closed_at, closings.last_closed_at) as last_resolved_at
    from cases
    left join closings
        on
            cases.project_id = closings.project_id
            and cases.case_id = closings.case_id
    where cases.created_at is not null
),

-- What was said before the case is no answer to it, nor what follows its resolution: who resolves a
-- case has answered it.
first_answers as (
    select
        resolved.project_id,
        resolved.case_id,
        min(answers.answered_at) as first_response_at
    from resolved
    inner join answers
        on
            resolved.project_id = answers.project_id
            and resolved.case_id = answers.case_id
    where
        answers.answered_at >= resolved.created_at
        and (
            resolved.first_resolved_at is null
            or answers.answered_at <= resolved.first_resolved_at
        )
    group by resolved.project_id, resolved.case_id
),

waits as (
    select
        resolved.project_id,
        resolved.case_id,
        max(
            case
                when visits.left_at is null and resolved.first_resolved_at is null
                    then visits.entered_at
            end
        ) as waiting_since,
        sum({{ seconds_between(
            'visits.entered_at', 'coalesce(visits.left_at, resolved.first_resolved_at)'
        ) }}) as waiting_seconds
    from resolved
    inner join visits
        on
            resolved.project_id = visits.project_id
            and resolved.case_id = visits.case_id
    where
        visits.is_waiting
        and (
            resolved.first_resolved_at is null
            or visits.entered_at < resolved.first_resolved_at
        )
    group by resolved.project_id, resolved.case_id
),

final as (
    select
        cast('salesforce' as {{ type_label() }}) as source_system,
        resolved.project_id,
        resolved.case_id as ticket_id,
        {{ salesforce_field('resolved', 'field_map.facility_id', standard) }} as facility_id,
        coalesce(
            {{ salesforce_field('resolved', 'field_map.rep_id', standard) }}, resolved.owner_id
        ) as agent_id,
        case
            when lower(resolved.priority) in ('critical', 'urgent') then 'critical'
            when lower(resolved.priority) in ('high', 'low') then lower(resolved.priority)
            else 'medium'
        end as priority,
        case
            when resolved.is_closed then 'closed'
            when waits.waiting_since is not null then 'waiting'
            else 'open'
        end as status,
        resolved.created_at,
        first_answers.first_response_at,
        resolved.first_resolved_at,
        resolved.last_resolved_at,
        waits.waiting_since,
        cast(waits.waiting_seconds as bigint) as waiting_seconds,
        resolved.modified_at as updated_at,
        coalesce(resolved.is_deleted, false) or resolved.is_gone as is_deleted,
        {{ dbt.concat(["'case '", 'resolved.case_id']) }} as record_origin
    from resolved
    left join first_answers
        on
            resolved.project_id = first_answers.project_id
            and resolved.case_id = first_answers.case_id
    left join waits
        on
            resolved.project_id = waits.project_id
            and resolved.case_id = waits.case_id
    left join field_map
        on
            field_map.source_system = 'salesforce'
            and field_map.entity = 'tickets'
            and resolved.project_id = field_map.project_id
)

select * from final
