{{ config(materialized='table') }}

{#- Days of a pipeline that it takes at least to know what is usual. -#}
{%- set least_known_days = 10 -%}

with

rules as (
    select * from {{ ref('alert_rules') }}
),

thresholds as (
    select * from {{ ref('int_alert_thresholds') }}
),

projects as (
    select * from {{ ref('int_alert_projects') }}
),

work_days as (
    select * from {{ ref('int_work_days') }}
),

rep_weeks as (
    select * from {{ ref('int_alert_rep_weeks') }}
),

pipeline_health as (
    select * from {{ ref('pipeline_health') }}
),

orders as (
    select * from {{ ref('orders_current') }}
    where sla_state = 'over'
),

unmapped_stages as (
    select * from {{ ref('unmapped_stage_events') }}
),

versions as (
    select * from {{ ref('base_settings__report_versions') }}
    where state = 'published'
),

pipeline_moves as (
    select * from {{ ref('int_pipeline_moves') }}
    where known_days >= {{ least_known_days }}
),

limits as (
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

priorities as (
    select
        alert,
        max(priority) as priority
    from rules
    group by alert
),

-- On Monday nothing of the week has gone by, and nothing is due.
reps as (
    select
        {%- for rule in ['calls_this_week', 'rep_needs_support_score', 'rep_needs_support_calls'] %}
        limits.{{ rule }} as {{ rule }}_a_week,
        {{ pro_rated('limits.' ~ rule, 'rep_weeks') }} as {{ rule }}_by_now,
        {%- endfor %}
        rep_weeks.source_system,
        rep_weeks.project_id,
        rep_weeks.rep_id,
        rep_weeks.rep_name,
        rep_weeks.calls,
        rep_weeks.score,
        rep_weeks.days_gone,
        rep_weeks.working_days_in_week
    from rep_weeks
    inner join limits
        on
            rep_weeks.source_system = limits.source_system
            and rep_weeks.project_id = limits.project_id
    where rep_weeks.days_gone > 0
),

few_calls as (
    select
        'calls_this_week' as alert,
        source_system,
        project_id,
        'rep' as subject_type,
        rep_id as subject_id,
        rep_name as subject_name,
        calls as value,
        calls_this_week_by_now as threshold,
        {{ dbt.concat([
            "'Calls made this week: '", said_number('calls'), "' of '",
            said_number('calls_this_week_by_now'), "' due by now ('",
            said_number('calls_this_week_a_week'), "' a week)'",
        ]) }} as message
    from reps
    where calls * working_days_in_week < calls_this_week_a_week * days_gone
),

reps_in_need as (
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
            said_number('rep_needs_support_score_by_now'), "' and calls '", said_number('calls'),
            "' of '", said_number('rep_needs_support_calls_by_now'), "' due by now ('",
            said_number('rep_needs_support_score_a_week'), "' and '",
            said_number('rep_needs_support_calls_a_week'), "' a week)'",
        ]) }} as message
    from reps
    where
        score * working_days_in_week < rep_needs_support_score_a_week * days_gone
        and calls * working_days_in_week < rep_needs_support_calls_a_week * days_gone
),

project_weeks as (
    select
        source_system,
        project_id,
        max(case when week_start = as_of_week then working_days_gone_in_week end) as days_gone,
        max(case when week_start = as_of_week then working_days_in_week end)
            as working_days_in_week,
        max(
            case
                when {{ day_of_date('week_start') }} = {{ day_of_date('as_of_week') }} + 7
                    then working_days_in_week
            end
        ) as working_days_in_next_week
    from work_days
    group by source_system, project_id
),

projects_with_reps as (
    select distinct
        source_system,
        project_id
    from rep_weeks
),

-- A week in which nobody works needs no calls.
next_weeks as (
    select
        project_weeks.source_system,
        project_weeks.project_id,
        project_weeks.days_gone,
        project_weeks.working_days_in_week,
        coalesce(pipeline_health.calls_next_week, 0) as calls,
        limits.calls_next_week as calls_a_week,
        {{ pro_rated('limits.calls_next_week', 'project_weeks') }} as calls_by_now
    from project_weeks
    inner join projects_with_reps
        on
            project_weeks.source_system = projects_with_reps.source_system
            and project_weeks.project_id = projects_with_reps.project_id
    inner join limits
        on
            project_weeks.source_system = limits.source_system
            and project_weeks.project_id = limits.project_id
    left join pipeline_health
        on
            project_weeks.source_system = pipeline_health.source_system
            and project_weeks.project_id = pipeline_health.project_id
            and pipeline_health.subject_type = 'all'
    where project_weeks.days_gone > 0 and project_weeks.working_days_in_next_week > 0
),

few_calls_ahead as (
    select
        'calls_next_week' as alert,
        source_system,
        project_id,
        'all' as subject_type,
        'all' as subject_id,
        'all' as subject_name,
        calls as value,
        calls_by_now as threshold,
        {{ dbt.concat([
            "'Calls booked for next week: '", said_number('calls'), "' of '",
            said_number('calls_by_now'), "' due by now ('", said_number('calls_a_week'),
            "' a week)'",
        ]) }} as message
    from next_weeks
    where calls * working_days_in_week < calls_a_week * days_gone
),

-- What a rep who has left still owes is overdue all the more.
overdue_lists as (
    select
        pipeline_health.source_system,
        pipeline_health.project_id,
        pipeline_health.subject_id,
        pipeline_health.subject_name,
        pipeline_health.lists_overdue,
        floor(pipeline_health.oldest_overdue_seconds / 86400.0) as days,
        limits.partner_lists_overdue,
        pipeline_health.subject_id != 'unassigned' and rep_weeks.rep_id is null as is_rep_gone
    from pipeline_health
    inner join limits
        on
            pipeline_health.source_system = limits.source_system
            and pipeline_health.project_id = limits.project_id
    left join rep_weeks
        on
            pipeline_health.source_system = rep_weeks.source_system
            and pipeline_health.project_id = rep_weeks.project_id
            and pipeline_health.subject_id = rep_weeks.rep_id
    where pipeline_health.subject_type = 'rep'
),

lists_past_due as (
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
            "'Partner lists past their due date: '", said_number('lists_overdue'),
            "case when days is not null then case lists_overdue when 1 then ', by ' else"
            ~ " ', the oldest by ' end else '' end",
            "case when days < 1 then 'less than a day' when days = 1 then '1 day' when days > 1 then "
            ~ dbt.concat([said_number('days'), "' days'"]) ~ " else '' end",
            "case when is_rep_gone then '; the rep is not there today' else '' end",
        ]) }} as message
    from overdue_lists
    where lists_overdue > partner_lists_overdue
),

orders_past_limit as (
    select
        'orders_over_sla' as alert,
        source_system,
        project_id,
        count(*) as things
    from orders
    group by source_system, project_id
),

-- What an earlier map did not know may be in the one that was published last.
ranked_versions as (
    select
        report_version,
        row_number() over (order by published_at desc, report_version desc) as place
    from versions
),

unknown_stages as (
    select
        'unmapped_stages' as alert,
        unmapped_stages.source_system,
        unmapped_stages.project_id,
        count(*) as things
    from unmapped_stages
    inner join ranked_versions
        on
            unmapped_stages.report_version = ranked_versions.report_version
            and ranked_versions.place = 1
    group by unmapped_stages.source_system, unmapped_stages.project_id
),

things_of_projects as (
    select * from orders_past_limit
    union all
    select * from unknown_stages
),

limited_things as (
    select
        things_of_projects.alert,
        things_of_projects.source_system,
        things_of_projects.project_id,
        things_of_projects.things,
        coalesce(projects.project_name, things_of_projects.project_id) as project_name,
        case things_of_projects.alert
            when 'orders_over_sla' then limits.orders_over_sla
            else limits.unmapped_stages
        end as threshold
    from things_of_projects
    inner join limits
        on
            things_of_projects.source_system = limits.source_system
            and things_of_projects.project_id = limits.project_id
    inner join projects
        on
            things_of_projects.source_system = projects.source_system
            and things_of_projects.project_id = projects.project_id
),

projects_with_things as (
    select
        alert,
        source_system,
        project_id,
        'project' as subject_type,
        project_id as subject_id,
        project_name as subject_name,
        things as value,
        threshold,
        {{ dbt.concat([
            "case alert when 'orders_over_sla' then 'Orders past the limit of their stage: ' else"
            ~ " 'Stages that the map does not know: ' end",
            said_number('things'),
        ]) }} as message
    from limited_things
    where things > threshold
),

-- A pipeline is that of a source, of all its projects: the least of their thresholds holds.
limits_of_sources as (
    select
        source_system,
        min(pipeline_change) as spreads
    from limits
    group by source_system
),

surprises as (
    select
        {%- for measure in ['open_value', 'open_leads'] %}
        abs({{ measure }}_change - usual_{{ measure }}_change) as {{ measure }}_surprise,
        {%- endfor %}
        pipeline_moves.source_system,
        pipeline_moves.currency,
        pipeline_moves.open_value_change,
        pipeline_moves.open_leads_change,
        pipeline_moves.open_value_spread,
        pipeline_moves.open_leads_spread,
        pipeline_moves.known_days,
        limits_of_sources.spreads
    from pipeline_moves
    inner join limits_of_sources on pipeline_moves.source_system = limits_of_sources.source_system
),

-- What never changed has no spread that a change could be a multiple of.
judged_surprises as (
    select
        surprises.*,
        case
            when
                (open_value_spread = 0 and open_value_surprise > 0)
                or (open_leads_spread = 0 and open_leads_surprise > 0)
                then null
            else
                round(greatest(
                    coalesce(open_value_surprise / nullif(open_value_spread, 0), 0),
                    coalesce(open_leads_surprise / nullif(open_leads_spread, 0), 0)
                ), 2)
        end as spreads_moved
    from surprises
    where
        open_value_surprise > spreads * open_value_spread
        or open_leads_surprise > spreads * open_leads_spread
),

moved_pipelines as (
    select
        'pipeline_change' as alert,
        source_system,
        'all' as project_id,
        'pipeline' as subject_type,
        currency as subject_id,
        {{ dbt.concat(['source_system', "' '", 'currency']) }} as subject_name,
        spreads_moved as value,
        spreads as threshold,
        {{ dbt.concat([
            "'Open pipeline since the day before: '", said_change('open_value_change'), "' '",
            'currency', "', '", said_change('open_leads_change'),
            "case when abs(open_leads_change) = 1 then ' deal, ' else ' deals, ' end",
            "case when spreads_moved is null then "
            ~ dbt.concat(["'unlike any of the '", said_number('known_days'), "' days before'"])
            ~ ' else '
            ~ dbt.concat([said_number('spreads_moved'), "' times as far from usual as is usual'"])
            ~ ' end',
        ]) }} as message
    from judged_surprises
),

found as (
    {%- for alerts in [
        'few_calls', 'reps_in_need', 'few_calls_ahead', 'lists_past_due', 'projects_with_things',
        'moved_pipelines',
    ] %}
    select * from {{ alerts }}
    {%- if not loop.last %}
    union all
    {%- endif %}
    {%- endfor %}
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
