{%- set sums = [
    'leads', 'open_leads', 'value', 'weighted_value', 'open_value', 'open_weighted_value'
] %}

with

versions as (
    select * from {{ ref('int_opportunity_versions') }}
    where valid_from <= {{ as_of() }}
),

projects as (
    select * from {{ ref('stg_projects') }}
),

default_chances as (
    select default_win_probability from {{ ref('stage_weights') }}
    where stage = 'opportunity'
),

date_spine as (
    select * from {{ ref('int_date_spine') }}
),

-- The days at whose end a version counts: from the day on which it begins to the one before that
-- on which it ends.
placed as (
    select
        versions.source_system,
        versions.currency,
        coalesce(versions.stage, 'none') as stage,
        {{ flag("versions.status = 'open'") }} as is_open,
        coalesce(versions.amount, 0) as amount,
        cast(
            coalesce(versions.amount, 0)
            * case versions.status
                when 'won' then 1
                else coalesce(versions.win_probability, default_chances.default_win_probability)
            end as {{ type_money() }}
        ) as expected_amount,
        {{ local_day('versions.valid_from', "coalesce(projects.timezone, 'UTC')") }} as first_day,
        case
            when least(versions.valid_to, versions.deleted_at) <= {{ as_of() }}
                then {{ local_day(
                    'least(versions.valid_to, versions.deleted_at)',
                    "coalesce(projects.timezone, 'UTC')"
                ) }}
        end as end_day,
        {{ local_day(as_of(), "coalesce(projects.timezone, 'UTC')") }} as last_day
    from versions
    cross join default_chances
    left join projects
        on
            versions.source_system = projects.source_system
            and versions.project_id = projects.project_id
    where versions.status not in ('lost', 'archived')
),

steps as (
    select
        source_system,
        currency,
        stage,
        {{ date_of_day('first_day') }} as day,
        1 as leads,
        is_open as open_leads,
        amount as value,
        expected_amount as weighted_value,
        amount * is_open as open_value,
        expected_amount * is_open as open_weighted_value
    from placed
    where end_day is null or end_day > first_day
    union all
    select
        source_system,
        currency,
        stage,
        {{ date_of_day('end_day') }} as day,
        -1 as leads,
        -is_open as open_leads,
        -amount as value,
        -expected_amount as weighted_value,
        -amount * is_open as open_value,
        -expected_amount * is_open as open_weighted_value
    from placed
    where end_day > first_day
),

steps_of_days as (
    select
        source_system,
        currency,
        stage,
        day,
        sum(leads) as leads,
        sum(open_leads) as open_leads,
        sum(value) as value,
        sum(weighted_value) as weighted_value,
        sum(open_value) as open_value,
        sum(open_weighted_value) as open_weighted_value
    from steps
    group by
        source_system,
        currency,
        stage,
        day
),

spans as (
    select
        source_system,
        currency,
        min(first_day) as first_day,
        max(last_day) as last_day
    from placed
    group by
        source_system,
        currency
),

stages as (
    select distinct
        source_system,
        currency,
        stage
    from placed
),

days as (
    select
        spans.source_system,
        spans.currency,
        stages.stage,
        date_spine.date_day as day
    from spans
    inner join stages
        on
            spans.source_system = stages.source_system
            and spans.currency = stages.currency
    inner join date_spine
        on
            date_spine.date_day >= {{ date_of_day('spans.first_day') }}
            and date_spine.date_day <= {{ date_of_day('spans.last_day') }}
),

stages_of_days as (
    select
        {%- for column in sums %}
        sum(coalesce(steps_of_days.{{ column }}, 0)) over so_far as {{ column }},
        {%- endfor %}
        days.source_system,
        days.currency,
        days.day,
        days.stage
    from days
    left join steps_of_days
        on
            days.source_system = steps_of_days.source_system
            and days.currency = steps_of_days.currency
            and days.stage = steps_of_days.stage
            and days.day = steps_of_days.day
    window so_far as (
        partition by days.source_system, days.currency, days.stage
        order by days.day
        rows between unbounded preceding and current row
    )
),

final as (
    select
        source_system,
        currency,
        day,
        cast(sum(leads) as bigint) as total_leads,
        cast(sum(open_leads) as bigint) as open_leads,
        cast(sum(value) as {{ type_money() }}) as total_value,
        cast(sum(weighted_value) as {{ type_money() }}) as weighted_value,
        cast(sum(open_value) as {{ type_money() }}) as open_value,
        cast(sum(open_weighted_value) as {{ type_money() }}) as open_weighted_value,
        {{ counts_by_label('stage', 'leads') }} as stage_breakdown,
        {{ built_at() }} as updated_at
    from stages_of_days
    group by
        source_system,
        currency,
        day
)

select * from final
