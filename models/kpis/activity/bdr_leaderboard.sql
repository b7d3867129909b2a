{#- Components of the score, and the kpi that each is counted by. -#}
{%- set components = {
    'calls': 'calls', 'agreements': 'agreements', 'lists': 'lists_out', 'sales': 'sales',
} -%}

with

actuals as (
    select * from {{ ref('int_kpi_actuals') }}
    where kpi in ('{{ components.values() | join("', '") }}')
),

subject_periods as (
    select * from {{ ref('int_subject_periods') }}
    where period_type in ('week', 'month')
),

subjects as (
    select * from {{ ref('int_subjects') }}
),

weights as (
    select
        {%- for component in components %}
        max(case component when '{{ component }}' then weight end) as {{ component }}_weight
        {{- ',' if not loop.last }}
        {%- endfor %}
    from {{ ref('score_weights') }}
),

parts as (
    select
        {%- for component, kpi in components.items() %}
        case kpi when '{{ kpi }}' then actual else 0 end as {{ component }},
        {%- endfor %}
        source_system,
        project_id,
        subject_type,
        subject_id,
        period_type,
        period_start
    from actuals
    union all
    select
        {%- for component in components %}
        0 as {{ component }},
        {%- endfor %}
        source_system,
        project_id,
        subject_type,
        subject_id,
        period_type,
        period_start
    from subject_periods
),

counted as (
    select
        {%- for component in components %}
        cast(sum({{ component }}) as bigint) as {{ component }},
        {%- endfor %}
        source_system,
        project_id,
        subject_type,
        subject_id,
        period_type,
        period_start
    from parts
    group by
        source_system,
        project_id,
        subject_type,
        subject_id,
        period_type,
        period_start
),

scored as (
    select
        counted.*,
        {%- for component in components %}
        {{ '+ ' if not loop.first }}counted.{{ component }} * weights.{{ component }}_weight
        {%- endfor %} as score
    from counted
    cross join weights
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
    from ranked as these
    left join ranked as previous
        on
            {{ same_subject('these', 'previous') | indent(12) }}
            and these.period_type = previous.period_type
            and these.period_start = case these.period_type
                when 'week' then {{ date_of_day('(' ~ day_of_date('previous.period_start') ~ ' + 7)') }}
                else {{ add_months('previous.period_start', 1) }}
            end
    left join subjects
        on
            {{ same_subject('these', 'subjects') | indent(12) }}
)

select * from final
