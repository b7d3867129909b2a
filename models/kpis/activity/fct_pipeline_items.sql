{{ config(post_hook='{{ gather_statistics(this) }}') }}

{%- set steps = {
    'call': 'call_conducted_at',
    'proposal': 'proposal_at',
    'agreement': 'agreement_at',
    'list_out': 'partner_list_sent_at',
    'first_sale': 'first_sale_at',
} %}

with

items as (
    select * from {{ ref('stg_pipeline_items') }}
),

roster as (
    select * from {{ ref('int_roster') }}
),

-- Only what had happened by then is known as of an instant.
known as (
    select
        item_key,
        source_system,
        project_id,
        item_id,
        lead_key,
        sublist_key,
        facility_id,
        rep_id,
        stage,
        sales_stage,
        partner_list_size,
        total_sales_from_list,
        is_deleted,
        timezone,
        created_at,
        call_booked_at,
        partner_list_due_at,
        closed_at,
        record_origin,
        {%- for step, instant in steps.items() %}
        case when {{ instant }} <= {{ as_of() }} then {{ instant }} end as {{ step }}_at,
        {%- endfor %}
        closed_at <= {{ as_of() }} as is_closed
    from items
),

dated as (
    select
        known.*,
        {%- for step in steps %}
        {{ date_of_day(local_day(step ~ '_at', 'timezone')) }} as {{ step }}_date,
        {%- endfor %}
        {{ date_of_day(local_day('partner_list_due_at', 'timezone')) }} as list_due_date,
        {{ date_of_day(local_day(as_of(), 'timezone')) }} as as_of_date
    from known
),

-- A later step implies the earlier ones, whether or not the source dates them: of what has brought
-- a sale no list is owed.
reached as (
    select
        dated.*,
        coalesce(call_date, proposal_date, agreement_date, list_out_date, first_sale_date)
            as cohort_date,
        case
            when first_sale_at is not null then 5
            when list_out_at is not null then 4
            when agreement_at is not null then 3
            when proposal_at is not null then 2
            when call_at is not null then 1
            else 0
        end as steps_reached,
        {{ seconds_between('proposal_at', 'agreement_at') }} as raw_proposal_to_agreement_seconds,
        {{ seconds_between('agreement_at', 'list_out_at') }} as raw_agreement_to_list_seconds
    from dated
),

judged as (
    select
        reached.*,
        raw_proposal_to_agreement_seconds is not null
        and (
            raw_proposal_to_agreement_seconds < 0
            or {{ is_implausible('proposal_at') }}
            or {{ is_implausible('agreement_at') }}
        ) as is_proposal_to_agreement_impossible,
        raw_agreement_to_list_seconds is not null
        and (
            raw_agreement_to_list_seconds < 0
            or {{ is_implausible('agreement_at') }}
            or {{ is_implausible('list_out_at') }}
        ) as is_agreement_to_list_impossible,
        proposal_at is not null and steps_reached = 2 and not coalesce(is_closed, false)
            as is_proposal_open,
        steps_reached = 3 and not coalesce(is_closed, false) as is_list_open,
        partner_list_due_at is not null and steps_reached < 4 and not coalesce(is_closed, false)
            as is_list_owed
    from reached
),

final as (
    select
        judged.item_key,
        judged.source_system,
        judged.project_id,
        judged.item_id,
        judged.lead_key,
        judged.sublist_key,
        judged.facility_id,
        judged.rep_id,
        coalesce(cohort_roster.team_id, 'unassigned') as cohort_team_id,
        coalesce(current_roster.team_id, 'unassigned') as current_team_id,
        judged.stage,
        judged.sales_stage,
        case
            when judged.is_deleted then 'deleted'
            when judged.created_at > {{ as_of() }} then 'created after as_of'
        end as excluded_reason,
        judged.record_origin,
        judged.steps_reached,
        {{ flag('judged.is_closed') }} as is_closed,
        {{ flag('judged.is_proposal_open') }} as is_proposal_outstanding,
        {{ flag('judged.is_list_open') }} as is_list_waiting,
        {{ flag('judged.is_list_open and judged.partner_list_due_at is null') }}
            as is_list_without_due_date,
        {{ flag(
            'judged.is_list_owed and ' ~ local_period("'week'", 'judged.partner_list_due_at',
            'judged.timezone') ~ ' = ' ~ local_period("'week'", as_of(), 'judged.timezone')
        ) }} as is_list_due_this_week,
        {{ flag('judged.is_list_owed and judged.partner_list_due_at <= ' ~ as_of()) }}
            as is_list_overdue,
        {{ flag('judged.is_proposal_to_agreement_impossible') }}
            as has_impossible_proposal_to_agreement,
        {{ flag('judged.is_agreement_to_list_impossible') }} as has_impossible_agreement_to_list,
        judged.partner_list_size as list_size,
        judged.total_sales_from_list as sales_from_list,
        case
            when judged.is_proposal_open and not {{ is_implausible('judged.proposal_at') }}
                then {{ seconds_between('judged.proposal_at', as_of()) }}
        end as proposal_age_seconds,
        case
            when
                judged.is_list_owed
                and judged.partner_list_due_at <= {{ as_of() }}
                and not {{ is_implausible('judged.partner_list_due_at') }}
                then {{ seconds_between('judged.partner_list_due_at', as_of()) }}
        end as overdue_seconds,
        case
            when not judged.is_proposal_to_agreement_impossible
                then judged.raw_proposal_to_agreement_seconds
        end as proposal_to_agreement_seconds,
        case
            when not judged.is_agreement_to_list_impossible
                then judged.raw_agreement_to_list_seconds
        end as agreement_to_list_seconds,
        judged.cohort_date,
        {{ month_of_date('judged.cohort_date') }} as cohort_month,
        judged.call_date,
        judged.proposal_date,
        judged.agreement_date,
        judged.list_due_date,
        judged.list_out_date,
        judged.first_sale_date,
        judged.created_at,
        judged.call_booked_at,
        judged.call_at,
        judged.proposal_at,
        judged.agreement_at,
        judged.partner_list_due_at as list_due_at,
        judged.list_out_at,
        judged.first_sale_at,
        case when judged.is_closed then judged.closed_at end as closed_at,
        {{ built_at() }} as updated_at
    from judged
    left join roster as cohort_roster
        on
            {{ in_team_on('judged', 'judged.cohort_date', 'cohort_roster') | indent(12) }}
    left join roster as current_roster
        on
            {{ in_team_on('judged', 'judged.as_of_date', 'current_roster') | indent(12) }}
)

select * from final
