{{ config(materialized='view') }}

with

items as (
    select * from {{ ref('int_pipeline_items') }}
),

roster as (
    select * from {{ ref('int_roster') }}
),

final as (
    select
        items.item_key,
        items.source_system,
        items.project_id,
        items.item_id,
        items.lead_key,
        items.sublist_key,
        items.facility_id,
        items.rep_id,
        coalesce(cohort_roster.team_id, 'unassigned') as cohort_team_id,
        coalesce(current_roster.team_id, 'unassigned') as current_team_id,
        items.stage,
        items.sales_stage,
        items.excluded_reason,
        items.record_origin,
        items.steps_reached,
        items.is_closed,
        items.is_proposal_outstanding,
        items.is_list_waiting,
        items.is_list_without_due_date,
        {{ flag(
            'items.is_list_owed = 1 and ' ~ local_period("'week'", 'items.list_due_at',
            'items.timezone') ~ ' = ' ~ local_period("'week'", as_of(), 'items.timezone')
        ) }} as is_list_due_this_week,
        items.is_list_overdue,
        items.has_impossible_proposal_to_agreement,
        items.has_impossible_agreement_to_list,
        items.list_size,
        items.sales_from_list,
        case
            when items.is_proposal_outstanding = 1 and not {{ is_implausible('items.proposal_at') }}
                then {{ seconds_between('items.proposal_at', as_of()) }}
        end as proposal_age_seconds,
        case
            when items.is_list_overdue = 1 and not {{ is_implausible('items.list_due_at') }}
                then {{ seconds_between('items.list_due_at', as_of()) }}
        end as overdue_seconds,
        items.proposal_to_agreement_seconds,
        items.agreement_to_list_seconds,
        items.cohort_date,
        {{ month_of_date('items.cohort_date') }} as cohort_month,
        items.call_date,
        items.proposal_date,
        items.agreement_date,
        items.list_due_date,
        items.list_out_date,
        items.first_sale_date,
        items.created_at,
        items.call_booked_at,
        items.call_at,
        items.proposal_at,
        items.agreement_at,
        items.list_due_at,
        items.list_out_at,
        items.first_sale_at,
        items.closed_at,
        {{ built_at() }} as updated_at
    from items
    left join roster as cohort_roster
        on
            {{ in_team_on('items', 'items.cohort_date', 'cohort_roster') | indent(12) }}
    left join roster as current_roster
        on
            {{ in_team_on(
                'items', date_of_day(local_day(as_of(), 'items.timezone')), 'current_roster'
            ) | indent(12) }}
)

select * from final
