{%- set counts = [
    'calls_this_week', 'calls_left_this_week', 'calls_next_week', 'outstanding_proposals',
    'lists_waiting', 'lists_due_this_week', 'lists_overdue', 'lists_without_due_date',
    'aged_proposals',
] %}

with

call_hours as (
    select * from {{ ref('int_call_hours') }}
),

work_days as (
    select * from {{ ref('int_work_days') }}
),

roster as (
    select * from {{ ref('int_roster') }}
),

items as (
    select
        source_system,
        project_id,
        rep_id,
        current_team_id as team_id,
        is_proposal_outstanding,
        is_list_waiting,
        is_list_due_this_week,
        is_list_overdue,
        is_list_without_due_date,
        proposal_age_seconds,
        overdue_seconds
    from {{ ref('fct_pipeline_items') }}
    where
        excluded_reason is null
        and is_proposal_outstanding
        + is_list_waiting
        + is_list_due_this_week
        + is_list_overdue
        + is_list_without_due_date
        > 0
),

subject_periods as (
    select * from {{ ref('int_subject_periods') }}
    where period_type = 'week'
),

subjects as (
    select * from {{ ref('int_subjects') }}
),

projects as (
    select distinct
        source_system,
        project_id,
        as_of_date,
        as_of_week,
        {{ date_of_day('(' ~ day_of_date('as_of_week') ~ ' + 7)') }} as next_week
    from work_days
),

-- The weeks are counted for the team that the rep is in now.
calls as (
    select
        call_hours.source_system,
        call_hours.project_id,
        call_hours.rep_id,
        coalesce(roster.team_id, 'unassigned') as team_id,
        case when work_days.week_start = projects.as_of_week then call_hours.booked else 0 end
            as calls_this_week,
        case
            when work_days.week_start = projects.as_of_week
                then call_hours.booked - call_hours.due
            else 0
        end as calls_left_this_week,
        case when work_days.week_start = projects.next_week then call_hours.booked else 0 end
            as calls_next_week
    from call_hours
    inner join projects
        on
            call_hours.source_system = projects.source_system
            and call_hours.project_id = projects.project_id
    inner join work_days
        on
            call_hours.source_system = work_days.source_system
            and call_hours.project_id = work_days.project_id
            and call_hours.call_date = work_days.date_day
    left join roster
        on
            {{ in_team_on('call_hours', 'projects.as_of_date') | indent(12) }}
    where
        work_days.week_start in (projects.as_of_week, projects.next_week)
        and call_hours.booked > 0
),

calls_of_subjects as (
    select
        source_system,
        project_id,
        {{ subject_columns() | indent(8) }},
        sum(calls_this_week) as calls_this_week,
        sum(calls_left_this_week) as calls_left_this_week,
        sum(calls_next_week) as calls_next_week
    from calls
    {{ group_by_subject() | indent(4) }}
),

items_of_subjects as (
    select
        source_system,
        project_id,
        {{ subject_columns() | indent(8) }},
        sum(is_proposal_outstanding) as outstanding_proposals,
        sum(is_list_waiting) as lists_waiting,
        sum(is_list_due_this_week) as lists_due_this_week,
        sum(is_list_overdue) as lists_overdue,
        sum(is_list_without_due_date) as lists_without_due_date,
        count(proposal_age_seconds) as aged_proposals,
        {{ mean_seconds('proposal_age_seconds') }} as avg_proposal_age_seconds,
        {%- for share in [50, 85, 95] %}
        {{ percentile_seconds(share / 100, 'proposal_age_seconds') }}
            as p{{ share }}_proposal_age_seconds,
        {%- endfor %}
        max(proposal_age_seconds) as oldest_proposal_age_seconds,
        max(overdue_seconds) as oldest_overdue_seconds
    from items
    {{ group_by_subject() | indent(4) }}
),

present_subjects as (
    select
        subject_periods.source_system,
        subject_periods.project_id,
        subject_periods.subject_type,
        subject_periods.subject_id
    from subject_periods
    inner join projects
        on
            subject_periods.source_system = projects.source_system
            and subject_periods.project_id = projects.project_id
            and subject_periods.period_start = projects.as_of_week
    union
    select
        source_system,
        project_id,
        subject_type,
        subject_id
    from calls_of_subjects
    union
    select
        source_system,
        project_id,
        subject_type,
        subject_id
    from items_of_subjects
),

final as (
    select
        present_subjects.source_system,
        present_subjects.project_id,
        present_subjects.subject_type,
        present_subjects.subject_id,
        coalesce(subjects.subject_name, present_subjects.subject_id) as subject_name,
        {%- for count in counts %}
        cast(coalesce({{ count }}, 0) as bigint) as {{ count }},
        {%- endfor %}
        items_of_subjects.avg_proposal_age_seconds,
        items_of_subjects.p50_proposal_age_seconds,
        items_of_subjects.p85_proposal_age_seconds,
        items_of_subjects.p95_proposal_age_seconds,
        items_of_subjects.oldest_proposal_age_seconds,
        items_of_subjects.oldest_overdue_seconds,
        {{ built_at() }} as updated_at
    from present_subjects
    left join calls_of_subjects
        on
            {{ same_subject('present_subjects', 'calls_of_subjects') | indent(12) }}
    left join items_of_subjects
        on
            {{ same_subject('present_subjects', 'items_of_subjects') | indent(12) }}
    left join subjects
        on
            {{ same_subject('present_subjects', 'subjects') | indent(12) }}
)

select * from final
