{{ config(
    materialized=flow_materialized(),
    incremental_strategy='by_item',
    on_schema_change='append_new_columns',
    pre_hook='{{ begin_pipeline_items() }}',
    post_hook=['{{ gather_statistics(this) }}', '{{ remember_pipeline_items() }}'],
    indexes=[{'columns': ['item_key'], 'unique': true}],
) }}

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
    {{ where_item_is_to_build() }}
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
        {{ date_of_day(local_day('created_at', 'timezone')) }} as created_date,
        {{ date_of_day(local_day('partner_list_due_at', 'timezone')) }} as list_due_date,
        case when is_closed then {{ date_of_day(local_day('closed_at', 'timezone')) }} end
            as closed_date
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
        case
            when is_deleted then 'deleted'
            when created_at > {{ as_of() }} then 'created after as_of'
        end as excluded_reason,
        record_origin,
        timezone,
        steps_reached,
        {{ flag('is_closed') }} as is_closed,
        {{ flag('is_proposal_open') }} as is_proposal_outstanding,
        {{ flag('is_list_open') }} as is_list_waiting,
        {{ flag('is_list_open and partner_list_due_at is null') }} as is_list_without_due_date,
        {{ flag('is_list_owed') }} as is_list_owed,
        {{ flag('is_list_owed and partner_list_due_at <= ' ~ as_of()) }} as is_list_overdue,
        {{ flag('partner_list_due_at <= ' ~ as_of()) }} as is_list_due_by_now,
        {{ flag('is_proposal_to_agreement_impossible') }} as has_impossible_proposal_to_agreement,
        {{ flag('is_agreement_to_list_impossible') }} as has_impossible_agreement_to_list,
        partner_list_size as list_size,
        total_sales_from_list as sales_from_list,
        case when not is_proposal_to_agreement_impossible then raw_proposal_to_agreement_seconds end
            as proposal_to_agreement_seconds,
        case when not is_agreement_to_list_impossible then raw_agreement_to_list_seconds end
            as agreement_to_list_seconds,
        cohort_date,
        created_date,
        call_date,
        proposal_date,
        agreement_date,
        list_due_date,
        list_out_date,
        first_sale_date,
        closed_date,
        created_at,
        call_booked_at,
        call_at,
        proposal_at,
        agreement_at,
        partner_list_due_at as list_due_at,
        list_out_at,
        first_sale_at,
        case when is_closed then closed_at end as closed_at
    from judged
)

select * from final
