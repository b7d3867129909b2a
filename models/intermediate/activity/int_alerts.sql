{{ config(materialized='table') }}

{#- Days of the pipeline that its usual spread is known from, and how many it takes at least. -#}
{%- set spread_days = 30 -%}
{%- set least_spread_days = 10 -%}

with

thresholds as (
    select * from {{ ref('int_alert_thresholds') }}
),

projects as (
    select * from {{ ref('stg_projects') }}
),

work_days as (
    select * from {{ ref('int_work_days') }}
),

roster as (
    select * from {{ ref('int_roster') }}
),

leaderboard as (
    select * from {{ ref('bdr_leaderboard') }}
    where subject_type = 'rep' and period_type = 'week'
),

pipeline_health as (
    select * from {{ ref('pipeline_health') }}
    where subject_type = 'rep'
),

orders as (
    select * from {{ ref('orders_current') }}
    where sla_state = 'over'
),

unmapped_stages as (
    select * from {{ ref('unmapped_stage_events') }}
),

pipeline_days as (
    select * from {{ ref('sales_pipeline_daily') }}
),

thresholds_of_projects as (
    select
        {%- for rule in [
            'calls_this_week', 'calls_next_week', 'partner_lists_overdue',
            'rep_needs_support_score', 'rep_needs_support_calls', 'orders_over_sla',
            'unmapped_stages', 'pipeline_change',
        ] %}
        max(case rule when '{{ rule }}' then threshold end) as {{ rule }},
        {%- endfor %}
        source_system,
        project_id
    from thresholds
    group by source_system, project_id
),

reps_of_today as (
    select distinct
        roster.source_system,
        roster.project_id,
        roster.rep_id,
        roster.rep_name,
        work_days.as_of_week
    from roster
    inner join work_days
        on
            roster.source_system = work_days.source_system
            and roster.project_id = work_days.project_id
            and work_days.date_day = work_days.as_of_date
            and work_days.as_of_date >= roster.active_from
            and (roster.active_to is null or work_days.as_of_date <= roster.active_to)
),

-- How much of the week's working days has gone by, days on which the rep was not there left out.
weeks_of_reps as (
    select
        reps_of_today.source_system,
        reps_of_today.project_id,
        reps_of_today.rep_id,
        reps_of_today.rep_name,
        reps_of_today.as_of_week,
        count(*) as days_gone,
        cast(count(*) as {{ type_number() }}) / work_days.working_days_in_week as share_gone
    from reps_of_today
    inner join roster
        on
            reps_of_today.source_system = roster.source_system
            and reps_of_today.project_id = roster.project_id
            and reps_of_today.rep_id = roster.rep_id
    inner join work_days
        on
            reps_of_today.source_system = work_days.source_system
            and reps_of_today.project_id = work_days.project_id
            and reps_of_today.as_of_week = work_days.week_start
            and work_days.is_working_day = 1
            and work_days.date_day < work_days.as_of_date
            and work_days.date_day >= roster.active_from
            and (roster.active_to is null or work_days.date_day <= roster.active_to)
    group by
        reps_of_today.source_system,
        reps_of_today.project_id,
        reps_of_today.rep_id,
        reps_of_today.rep_name,
        reps_of_today.as_of_week,
        work_days.working_days_in_week
),

-- Weekly thresholds as far as the week has gone.
reps as (
    select
        weeks_of_reps.source_system,
        weeks_of_reps.project_id,
        weeks_of_reps.rep_id,
        weeks_of_reps.rep_name,
        coalesce(leaderboard.calls, 0) as calls,
        coalesce(leaderboard.score, 0) as score,
        coalesce(pipeline_health.calls_next_week, 0) as calls_next_week,
        {%- for rule in [
            'calls_this_week', 'calls_next_week', 'rep_needs_support_score',
            'rep_needs_support_calls',
        ] %}
        limits.{{ rule }} as {{ rule }}_in_week,
        round(limits.{{ rule }} * weeks_of_reps.share_gone, 2) as {{ rule }}_by_now
        {{- ',' if not loop.last }}
        {%- endfor %}
    from weeks_of_reps
    inner join thresholds_of_projects as limits
        on
            weeks_of_reps.source_system = limits.source_system
            and weeks_of_reps.project_id = limits.project_id
    left join leaderboard
        on
            weeks_of_reps.source_system = leaderboard.source_system
            and weeks_of_reps.project_id = leaderboard.project_id
            and weeks_of_reps.rep_id = leaderboard.subject_id
            and weeks_of_reps.as_of_week = leaderboard.period_start
    left join pipeline_health
        on
            weeks_of_reps.source_system = pipeline_health.source_system
            and weeks_of_reps.project_id = pipeline_health.project_id
            and weeks_of_reps.rep_id = pipeline_health.subject_id
),

overdue_lists as (
    select
        pipeline_health.*,
        limits.partner_lists_overdue
    from pipeline_health
    inner join thresholds_of_projects as limits
        on
            pipeline_health.source_system = limits.source_system
            and pipeline_health.project_id = limits.project_id
),

counts_of_projects as (
    select
        orders.source_system,
        orders.project_id,
        'orders_over_sla' as alert,
        count(*) as things
    from orders
    group by orders.source_system, orders.project_id
    union all
    select
        unmapped_stages.source_system,
        unmapped_stages.project_id,
        'unmapped_stages' as alert,
        count(distinct unmapped_stages.stage_id) as things
    from unmapped_stages
    group by unmapped_stages.source_system, unmapped_stages.project_id
),

limited_counts as (
    select
        counts_of_projects.*,
        coalesce(projects.project_name, counts_of_projects.project_id) as project_name,
        case counts_of_projects.alert
            when 'orders_over_sla' then limits.orders_over_sla
            else limits.unmapped_stages
        end as threshold
    from counts_of_projects
    inner join thresholds_of_projects as limits
        on
            counts_of_projects.source_system = limits.source_system
            and counts_of_projects.project_id = limits.project_id
    inner join projects
        on
            counts_of_projects.source_system = projects.source_system
            and counts_of_projects.project_id = projects.project_id
),

-- A pipeline is that of a source, of all its projects: the least of their thresholds holds.
limits_of_sources as (
    select
        source_system,
        min(pipeline_change) as spreads
    from thresholds_of_projects
    group by source_system
),

pipeline_steps as (
    select
        {%- for measure in ['open_value', 'open_leads'] %}
        {{ measure }} - lag({{ measure }}) over in_order as {{ measure }}_change,
        {%- endfor %}
        source_system,
        currency,
        row_number() over (
            partition by source_system, currency
            order by day desc
        ) as days_back
    from pipeline_days
    window in_order as (
        partition by source_system, currency
        order by day
    )
),

pipeline_changes as (
    select
        {%- for measure in ['open_value', 'open_leads'] %}
        max(case days_back when 1 then {{ measure }}_change end) as {{ measure }}_change,
        cast(
            stddev_samp(case when days_back > 1 then {{ measure }}_change end) as {{ type_number() }}
        ) as {{ measure }}_spread,
        {%- endfor %}
        source_system,
        currency,
        count(case when days_back > 1 then open_value_change end) as days
    from pipeline_steps
    where days_back <= {{ spread_days }} + 1
    group by source_system, currency
),

judged_pipelines as (
    select
        pipeline_changes.*,
        limits_of_sources.spreads,
        coalesce(
            greatest(
                abs(open_value_change) / nullif(open_value_spread, 0),
                abs(open_leads_change) / nullif(open_leads_spread, 0)
            ), 0
        ) as spreads_moved
    from pipeline_changes
    inner join limits_of_sources on pipeline_changes.source_system = limits_of_sources.source_system
    where pipeline_changes.days >= {{ least_spread_days }}
),

found as (
    {%- for alert in ['calls_this_week', 'calls_next_week'] %}
    select
        '{{ alert }}' as alert,
        source_system,
        project_id,
        'rep' as subject_type,
        rep_id as subject_id,
        rep_name as subject_name,
        {%- set count = 'calls' if alert == 'calls_this_week' else alert %}
        {{ count }} as value,
        {{ alert }}_by_now as threshold,
        {{ dbt.concat([
            "'Calls " ~ ('made this week: ' if count == 'calls' else 'booked for next week: ') ~ "'",
            said_number(count), "' of '", said_number(alert ~ '_by_now'), "' due by now ('",
            said_number(alert ~ '_in_week'), "' by the end of the week)'",
        ]) }} as message
    from reps
    where {{ count }} < {{ alert }}_by_now
    union all
    {%- endfor %}
    select
        'rep_needs_support' as alert,
        source_system,
        project_id,
        'rep' as subject_type,
        rep_id as subject_id,
        rep_name as subject_name,
        score as value,
        rep_needs_support_score_by_now as threshold,
        {{ dbt.concat([
            "'Needs support: score '", said_number('score'), "' of '",
            said_number('rep_needs_support_score_by_now'), "', calls '", said_number('calls'), "' of '",
            said_number('rep_needs_support_calls_by_now'), "' due by now'",
        ]) }} as message
    from reps
    where
        score < rep_needs_support_score_by_now
        and calls < rep_needs_support_calls_by_now
    union all
    select
        'partner_lists_overdue' as alert,
        source_system,
        project_id,
        'rep' as subject_type,
        subject_id,
        subject_name,
        lists_overdue as value,
        partner_lists_overdue as threshold,
        {{ dbt.concat([
            "'Partner lists past their due date: '", said_number('lists_overdue'), "', the oldest by '",
            said_number('floor(oldest_overdue_seconds / 86400.0)'), "' days'",
        ]) }} as message
    from overdue_lists
    where lists_overdue > partner_lists_overdue
    union all
    select
        alert,
        source_system,
        project_id,
        'project' as subject_type,
        project_id as subject_id,
        project_name as subject_name,
        things as value,
        threshold,
        case alert
            when 'orders_over_sla'
                then {{ dbt.concat(["'Orders past the limit of their stage: '", said_number('things')]) }}
            else {{ dbt.concat(["'Stages that the map does not know: '", said_number('things')]) }}
        end as message
    from limited_counts
    where things > threshold
    union all
    select
        'pipeline_change' as alert,
        source_system,
        'all' as project_id,
        'pipeline' as subject_type,
        currency as subject_id,
        {{ dbt.concat(['source_system', "' '", 'currency']) }} as subject_name,
        round(spreads_moved, 2) as value,
        spreads as threshold,
        {{ dbt.concat([
            "'Open pipeline moved by '", said_number('open_value_change'), "' '", 'currency', "' and '",
            said_number('open_leads_change'), "' deals in a day, '", said_number('spreads_moved'),
            "' times its usual spread'",
        ]) }} as message
    from judged_pipelines
    where spreads_moved > spreads
),

priorities as (
    select distinct
        alert,
        priority
    from {{ ref('alert_rules') }}
),

final as (
    select
        {{ dbt.concat([
            'found.alert', "'|'", 'found.source_system', "'|'", 'found.project_id', "'|'",
            'found.subject_type', "'|'", 'found.subject_id',
        ]) }} as alert_key,
        cast(found.alert as {{ type_label() }}) as rule,
        priorities.priority,
        found.source_system,
        cast(found.project_id as {{ type_label() }}) as project_id,
        cast(found.subject_type as {{ type_label() }}) as subject_type,
        cast(found.subject_id as {{ type_label() }}) as subject_id,
        cast(found.subject_name as {{ type_label() }}) as subject_name,
        cast(found.message as {{ type_label() }}) as message,
        cast(found.value as {{ type_money() }}) as value,
        cast(found.threshold as {{ type_money() }}) as threshold
    from found
    inner join priorities on found.alert = priorities.alert
)

select * from final
