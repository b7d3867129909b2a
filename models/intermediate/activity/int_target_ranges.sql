{{ config(materialized='table', post_hook='{{ gather_statistics(this) }}') }}

{%- set target_of = ['source_system', 'project_id', 'kpi', 'period_type', 'currency'] %}

with

roster as (
    select * from {{ ref('int_roster') }}
),

targets as (
    select
        source_system,
        project_id,
        kpi,
        period as period_type,
        coalesce(currency, 'XXX') as currency,
        subject_type,
        subject_id,
        cast(target as {{ type_number() }}) as target,
        effective_from as day_from,
        {{ date_of_day(day_of_date('effective_to') ~ ' - 1') }} as day_to
    from {{ ref('base_settings__kpi_targets') }}
),

-- On the days on which they are active; one of their own goes before the one of every rep.
candidates_of_reps as (
    {%- for place in [1, 2] %}
    select
        {%- for column in target_of %}
        targets.{{ column }},
        {%- endfor %}
        roster.rep_id,
        roster.team_id,
        targets.target,
        {{ place }} as place,
        greatest(targets.day_from, roster.active_from) as day_from,
        least(targets.day_to, roster.active_to) as day_to
    from targets
    inner join roster
        on
            targets.source_system = roster.source_system
            and targets.project_id = roster.project_id
            {%- if place == 1 %}
            and targets.subject_id = roster.rep_id
            {%- endif %}
            and (targets.day_to is null or targets.day_to >= roster.active_from)
            and (roster.active_to is null or targets.day_from <= roster.active_to)
    where
        targets.subject_type = 'rep'
        and targets.subject_id is {{ 'not ' if place == 1 }}null
    {%- if not loop.last %}
    union all
    {%- endif %}
    {%- endfor %}
),

ranges_of_reps as (
    {{ target_ranges('candidates_of_reps', target_of + ['rep_id', 'team_id']) | indent(4) }}
),

-- A target of the team, or of all, goes before the sum of those of its reps.
candidates_of_others as (
    select
        {%- for column in target_of %}
        {{ column }},
        {%- endfor %}
        subject_type,
        coalesce(subject_id, 'all') as subject_id,
        target,
        1 as place,
        day_from,
        day_to
    from targets
    where subject_type != 'rep'
    {%- for subject_type, subject_id in [('team', 'team_id'), ('all', "'all'")] %}
    union all
    select
        {%- for column in target_of %}
        {{ column }},
        {%- endfor %}
        '{{ subject_type }}' as subject_type,
        {{ subject_id }} as subject_id,
        target,
        2 as place,
        day_from,
        day_to
    from ranges_of_reps
    {%- endfor %}
),

ranges_of_others as (
    {{ target_ranges('candidates_of_others', target_of + ['subject_type', 'subject_id'])
        | indent(4) }}
),

final as (
    select
        {%- for column in target_of %}
        {{ column }},
        {%- endfor %}
        cast('rep' as {{ type_label() }}) as subject_type,
        rep_id as subject_id,
        cast('own' as {{ type_label() }}) as target_origin,
        target,
        day_from,
        day_to
    from ranges_of_reps
    union all
    select
        {%- for column in target_of %}
        {{ column }},
        {%- endfor %}
        subject_type,
        subject_id,
        case place when 1 then 'own' else 'sum of reps' end as target_origin,
        target,
        day_from,
        day_to
    from ranges_of_others
)

select * from final
