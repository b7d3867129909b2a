with

call_hours as (
    select * from {{ ref('int_call_hours') }}
),

roster as (
    select * from {{ ref('int_roster') }}
),

subject_periods as (
    select * from {{ ref('int_subject_periods') }}
    where period_type in ('day', 'week')
),

target_days as (
    select * from {{ ref('int_target_days') }}
    where kpi = 'calls'
),

subjects as (
    select * from {{ ref('int_subjects') }}
),

rep_days as (
    select
        source_system,
        project_id,
        rep_id,
        call_date,
        sum(booked) as booked,
        sum(due) as due,
        sum(held) as held,
        sum(conducted) as conducted
    from call_hours
    group by
        source_system,
        project_id,
        rep_id,
        call_date
),

team_days as (
    select
        rep_days.*,
        coalesce(roster.team_id, 'unassigned') as team_id
    from rep_days
    left join roster
        on
            {{ in_team_on('rep_days', 'rep_days.call_date') | indent(12) }}
),

subject_days as (
    select
        source_system,
        project_id,
        {{ subject_columns() | indent(8) }},
        call_date,
        sum(booked) as booked,
        sum(due) as due,
        sum(held) as held,
        sum(conducted) as conducted
    from team_days
    {{ group_by_subject(['call_date']) | indent(4) }}
),

-- A target by week goes before one by month.
ranked_target_days as (
    select
        target_days.*,
        row_number() over (
            partition by source_system, project_id, subject_type, subject_id, date_day
            order by case period_type when 'week' then 1 else 2 end
        ) as place
    from target_days
),

parts as (
    {%- for period in ['day', 'week'] %}
    select
        source_system,
        project_id,
        subject_type,
        subject_id,
        cast('{{ period }}' as {{ type_label() }}) as period_type,
        {{ week_of_date('call_date') if period == 'week' else 'call_date' }} as period_start,
        booked,
        due,
        held,
        conducted,
        null as target_of_day,
        1 as is_shown
    from subject_days
    union all
    select
        source_system,
        project_id,
        subject_type,
        subject_id,
        cast('{{ period }}' as {{ type_label() }}) as period_type,
        {{ 'week_start' if period == 'week' else 'date_day' }} as period_start,
        0 as booked,
        0 as due,
        0 as held,
        0 as conducted,
        target_of_day,
        0 as is_shown
    from ranked_target_days
    where place = 1
    union all
    {%- endfor %}
    select
        source_system,
        project_id,
        subject_type,
        subject_id,
        period_type,
        period_start,
        0 as booked,
        0 as due,
        0 as held,
        0 as conducted,
        null as target_of_day,
        1 as is_shown
    from subject_periods
),

summed as (
    select
        source_system,
        project_id,
        subject_type,
        subject_id,
        period_type,
        period_start,
        sum(booked) as booked,
        sum(due) as due,
        sum(held) as held,
        sum(conducted) as conducted,
        {{ target_of_days('target_of_day') }} as target,
        count(target_of_day) as target_working_days
    from parts
    group by
        period_start,
        subject_id,
        subject_type,
        period_type,
        project_id,
        source_system
    having max(is_shown) = 1
),

final as (
    select
        summed.source_system,
        summed.project_id,
        summed.subject_type,
        summed.subject_id,
        coalesce(subjects.subject_name, summed.subject_id) as subject_name,
        summed.period_type,
        summed.period_start,
        cast(summed.booked as bigint) as booked,
        cast(summed.due as bigint) as due,
        cast(summed.held as bigint) as held,
        cast(summed.due - summed.held as bigint) as missed,
        cast(summed.conducted as bigint) as conducted,
        {{ pct('summed.held', 'summed.due') }} as held_rate_pct,
        cast(summed.target as {{ type_money() }}) as target,
        summed.target_working_days,
        {{ pct('summed.conducted', 'summed.target') }} as attainment_pct,
        {{ built_at() }} as updated_at
    from summed
    left join subjects
        on
            {{ same_subject('summed', 'subjects') | indent(12) }}
)

select * from final
