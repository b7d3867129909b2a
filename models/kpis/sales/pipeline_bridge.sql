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

month_offsets as (
    select * from {{ ref('int_month_offsets') }}
),

first_months as (
    select
        versions.source_system,
        versions.project_id,
        coalesce(projects.timezone, 'UTC') as timezone,
        min({{ local_month('versions.valid_from', "coalesce(projects.timezone, 'UTC')") }})
            as first_month
    from versions
    left join projects
        on
            versions.source_system = projects.source_system
            and versions.project_id = projects.project_id
    group by
        versions.source_system,
        versions.project_id,
        coalesce(projects.timezone, 'UTC')
),

months as (
    select
        first_months.source_system,
        first_months.project_id,
        first_months.timezone,
        {{ add_months('first_months.first_month', 'month_offsets.months_since') }} as month,
        {{ add_months('first_months.first_month', '(month_offsets.months_since + 1)') }}
            as next_month
    from first_months
    inner join month_offsets
        on
            {{ add_months('first_months.first_month', 'month_offsets.months_since') }}
            <= {{ date_of_day(local_day(as_of(), 'first_months.timezone')) }}
),

periods as (
    select
        source_system,
        project_id,
        month,
        next_month,
        {{ instant_of_second(first_second_of_day(day_of_date('month'), 'timezone')) }}
            as starts_at,
        {{ instant_of_second(first_second_of_day(day_of_date('next_month'), 'timezone')) }}
            as ends_at
    from months
),

moments as (
    select
        periods.*,
        case when ends_at > {{ as_of() }} then {{ as_of() }} else ends_at end as known_end_at
    from periods
),

valued as (
    select
        versions.*,
        coalesce(versions.win_probability, default_chances.default_win_probability) as chance,
        cast(
            coalesce(versions.amount, 0)
            * coalesce(versions.win_probability, default_chances.default_win_probability)
            as {{ type_money() }}
        ) as expected_amount
    from versions
    cross join default_chances
),

{%- for moment, instant in {'start': 'starts_at', 'end': 'known_end_at'}.items() %}

at_{{ moment }} as (
    select
        moments.month,
        valued.opportunity_key,
        valued.source_system,
        valued.currency,
        valued.deleted_at <= moments.{{ instant }} as is_deleted,
        valued.status,
        valued.chance,
        valued.amount,
        case
            when
                valued.status = 'open'
                and coalesce(valued.deleted_at > moments.{{ instant }}, true)
                and valued.expected_close_date < moments.next_month
                then valued.expected_amount
        end as value
    from moments
    inner join valued
        on
            moments.source_system = valued.source_system
            and moments.project_id = valued.project_id
            and moments.{{ instant }} >= valued.valid_from
            and (valued.valid_to is null or moments.{{ instant }} < valued.valid_to)
),
{%- endfor %}

compared as (
    select
        at_end.month,
        at_end.source_system,
        coalesce(at_start.currency, at_end.currency) as currency,
        at_start.value as value_at_start,
        at_end.value as value_at_end,
        case
            when at_start.value is null and at_end.value is null then null
            when
                at_start.value is null
                and (at_start.opportunity_key is null or at_start.status != 'open')
                then 'new'
            when at_start.value is null then 'pulled_in'
            when coalesce(at_end.is_deleted, false) then 'deleted'
            when at_end.status = 'lost' then 'lost'
            when at_end.status = 'won' then 'won'
            when at_end.status = 'archived' then 'archived'
            when at_end.value is null then 'pushed_out'
            when at_end.chance > at_start.chance then 'advanced'
            when at_end.chance < at_start.chance then 'moved_back'
            when at_end.value > at_start.value then 'amount_up'
            when at_end.value < at_start.value then 'amount_down'
        end as change_type
    from at_end
    left join at_start
        on
            at_end.opportunity_key = at_start.opportunity_key
            and at_end.month = at_start.month
),

{%- set kinds = [
    'new', 'pulled_in', 'advanced', 'moved_back', 'amount_up', 'amount_down', 'pushed_out', 'lost',
    'won', 'archived', 'deleted'
] %}

final as (
    select
        source_system,
        currency,
        month,
        cast(coalesce(sum(value_at_start), 0) as {{ type_money() }}) as value_at_start,
        {%- for kind in kinds %}
        cast(coalesce(sum(
            case
                when change_type = '{{ kind }}'
                    then coalesce(value_at_end, 0) - coalesce(value_at_start, 0)
            end
        ), 0) as {{ type_money() }}) as {{ kind }}_value,
        count(case when change_type = '{{ kind }}' then 1 end) as {{ kind }}_opportunities,
        {%- endfor %}
        cast(coalesce(sum(value_at_end), 0) as {{ type_money() }}) as value_at_end,
        {{ built_at() }} as updated_at
    from compared
    group by
        source_system,
        currency,
        month
)

select * from final
