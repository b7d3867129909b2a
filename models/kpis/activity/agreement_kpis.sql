{{ config(
    materialized=flow_materialized(),
    incremental_strategy='by_month',
    on_schema_change='append_new_columns',
    pre_hook='{{ begin_periods(
        parts_of_periods(
            ["month"],
            days=[item_days()],
            periods=[item_teams(), subject_periods(), target_periods("agreements")],
            with_previous=true,
        ),
        name_parts(),
    ) }}',
    post_hook='{{ remember_periods() }}',
) }}
{{- read_by_hooks('int_pipeline_items') }}

with

steps as (
    select * from {{ ref('fct_item_steps') }}
    where
        excluded_reason is null
        and step in ('proposal', 'agreement')
        and {{ month_is_to_build('step_date', with_previous=true) }}
),

subject_periods as (
    select * from {{ ref('int_subject_periods') }}
    where period_type = 'month' and {{ month_is_to_build('period_start', with_previous=true) }}
),

targets as (
    select * from {{ ref('int_target_periods') }}
    where kpi = 'agreements' and period_type = 'month'
),

subjects as (
    select * from {{ ref('int_subjects') }}
),

counted as (
    select
        source_system,
        project_id,
        {{ subject_columns() | indent(8) }},
        {%- for share in [50, 85, 95] %}
        {{ percentile_seconds(share / 100, 'seconds_since_step_before') }}
            as p{{ share }}_proposal_to_agreement_seconds,
        {%- endfor %}
        month,
        sum({{ flag("step = 'proposal'") }}) as proposals,
        sum({{ flag("step = 'agreement'") }}) as agreements,
        sum(has_impossible_duration) as impossible_durations,
        count(seconds_since_step_before) as timed_agreements,
        {{ mean_seconds('seconds_since_step_before') }} as avg_proposal_to_agreement_seconds
    from steps
    {{ group_by_subject(['month']) | indent(4) }}
),

months as (
    select
        source_system,
        project_id,
        subject_type,
        subject_id,
        period_start as month
    from subject_periods
    union
    select
        source_system,
        project_id,
        subject_type,
        subject_id,
        month
    from counted
),

rows_of_months as (
    select
        months.source_system,
        months.project_id,
        months.subject_type,
        months.subject_id,
        months.month,
        coalesce(counted.proposals, 0) as proposals,
        coalesce(counted.agreements, 0) as agreements,
        targets.target,
        coalesce(counted.impossible_durations, 0) as impossible_durations,
        coalesce(counted.timed_agreements, 0) as timed_agreements,
        counted.avg_proposal_to_agreement_seconds,
        counted.p50_proposal_to_agreement_seconds,
        counted.p85_proposal_to_agreement_seconds,
        counted.p95_proposal_to_agreement_seconds
    from months
    left join counted
        on
            {{ same_subject('months', 'counted') | indent(12) }}
            and months.month = counted.month
    left join targets
        on
            {{ same_subject('months', 'targets') | indent(12) }}
            and months.month = targets.period_start
),

these as (
    select * from rows_of_months
    where {{ month_is_to_build('month') }}
),

final as (
    select
        these.source_system,
        these.project_id,
        these.subject_type,
        these.subject_id,
        coalesce(subjects.subject_name, these.subject_id) as subject_name,
        these.month,
        these.proposals,
        these.agreements,
        cast(these.target as {{ type_money() }}) as target,
        {{ pct('these.agreements', 'these.target') }} as attainment_pct,
        previous.agreements as agreements_previous_month,
        these.agreements - previous.agreements as agreements_change,
        these.timed_agreements,
        these.impossible_durations,
        these.avg_proposal_to_agreement_seconds,
        these.p50_proposal_to_agreement_seconds,
        these.p85_proposal_to_agreement_seconds,
        these.p95_proposal_to_agreement_seconds,
        {{ built_at() }} as updated_at
    from these
    left join rows_of_months as previous
        on
            {{ same_subject('these', 'previous') | indent(12) }}
            and these.month = {{ add_months('previous.month', 1) }}
    left join subjects
        on
            {{ same_subject('these', 'subjects') | indent(12) }}
)

select * from final
