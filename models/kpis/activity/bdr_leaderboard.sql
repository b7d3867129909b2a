{{ config(
    materialized=flow_materialized(),
    incremental_strategy='by_period_type',
    on_schema_change='append_new_columns',
    pre_hook='{{ begin_periods(
        parts_of_periods(
            ["week", "month"],
            periods=[contents_of_periods(ref("int_kpi_actuals")), subject_periods()],
            with_previous=true,
        ),
        name_parts() ~ " union all " ~ weight_parts(),
    ) }}',
    post_hook='{{ remember_periods() }}',
) }}
{%- set components = ['calls', 'agreements', 'lists', 'sales'] -%}

with

actuals as (
    select * from {{ ref('int_kpi_actuals') }}
    where {{ period_is_to_build('period_type', 'period_start', with_previous=true) }}
),

subject_periods as (
    select * from {{ ref('int_subject_periods') }}
    where
        period_type in ('week', 'month')
        and {{ period_is_to_build('period_type', 'period_start', with_previous=true) }}
),

subjects as (
    select * from {{ ref('int_subjects') }}
),

weights as (
    select * from {{ ref('score_weights') }}
),

weighted as (
    select
        actuals.source_system,
        actuals.project_id,
        actuals.subject_type,
        actuals.subject_id,
        actuals.period_type,
        actuals.period_start,
        weights.component,
        actuals.actual,
        actuals.actual * weights.weight as score
    from actuals
    inner join weights
        on
            case actuals.kpi when 'lists_out' then 'lists' else actuals.kpi end
            = weights.component
),

parts as (
    select
        source_system,
        project_id,
        subject_type,
        subject_id,
        period_type,
        period_start,
        component,
        actual,
        score
    from weighted
    union all
    select
        source_system,
        project_id,
        subject_type,
        subject_id,
        period_type,
        period_start,
        cast(null as {{ type_label() }}) as component,
        0 as actual,
        0 as score
    from subject_periods
),

scored as (
    select
        {%- for component in components %}
        cast(sum(case component when '{{ component }}' then actual else 0 end) as bigint)
            as {{ component }},
        {%- endfor %}
        source_system,
        project_id,
        subject_type,
        subject_id,
        period_type,
        period_start,
        sum(score) as score
    from parts
    group by
        source_system,
        project_id,
        subject_type,
        subject_id,
        period_type,
        period_start
),

-- Who is nobody is in no ranking.
ranked as (
    select
        scored.*,
        case
            when subject_id != 'unassigned'
                then rank() over (
                    partition by
                        source_system,
                        project_id,
                        subject_type,
                        period_type,
                        period_start,
                        {{ flag("subject_id = 'unassigned'") }}
                    order by score desc
                )
        end as place
    from scored
),

these as (
    select * from ranked
    where {{ period_is_to_build('period_type', 'period_start') }}
),

final as (
    select
        these.source_system,
        these.project_id,
        these.subject_type,
        these.subject_id,
        coalesce(subjects.subject_name, these.subject_id) as subject_name,
        these.period_type,
        these.period_start,
        {%- for component in components %}
        these.{{ component }},
        {%- endfor %}
        cast(these.score as {{ type_money() }}) as score,
        these.place as rank,
        cast(previous.score as {{ type_money() }}) as previous_score,
        cast(these.score - previous.score as {{ type_money() }}) as score_change,
        previous.place as previous_rank,
        previous.place - these.place as rank_change,
        {{ built_at() }} as updated_at
    from these
    left join ranked as previous
        on
            {{ same_subject('these', 'previous') | indent(12) }}
            and these.period_type = previous.period_type
            and these.period_start = case previous.period_type
                when 'week'
                    then {{ date_of_day('(' ~ day_of_date('previous.period_start') ~ ' + 7)') }}
                else {{ add_months('previous.period_start', 1) }}
            end
    left join subjects
        on
            {{ same_subject('these', 'subjects') | indent(12) }}
)

select * from final
