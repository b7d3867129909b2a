with

versions as (
    select * from {{ ref('int_opportunity_versions') }}
    where valid_from <= {{ as_of() }}
),

projects as (
    select * from {{ ref('stg_projects') }}
),

states as (
    select
        opportunity_key,
        version_number,
        status,
        stage,
        amount,
        valid_from
    from versions
    union all
    select
        opportunity_key,
        version_number + 1 as version_number,
        'deleted' as status,
        stage,
        amount,
        deleted_at as valid_from
    from versions
    where
        (valid_to is null or valid_to > {{ as_of() }})
        and deleted_at <= {{ as_of() }}
),

opportunities as (
    select distinct
        versions.opportunity_key,
        versions.source_system,
        versions.project_id,
        versions.opportunity_id,
        versions.currency,
        coalesce(projects.timezone, 'UTC') as timezone
    from versions
    left join projects
        on
            versions.source_system = projects.source_system
            and versions.project_id = projects.project_id
    where versions.valid_to is null or versions.valid_to > {{ as_of() }}
),

dated as (
    select
        states.*,
        {{ date_of_day(local_day('states.valid_from', 'opportunities.timezone')) }} as day
    from states
    inner join opportunities on states.opportunity_key = opportunities.opportunity_key
),

ends_of_days as (
    select
        dated.*,
        row_number() over (
            partition by opportunity_key, day order by version_number desc
        ) as place_from_end
    from dated
),

compared as (
    select
        opportunity_key,
        day,
        status,
        stage,
        amount,
        lag(status) over in_order as previous_status,
        lag(stage) over in_order as previous_stage,
        lag(amount) over in_order as previous_amount
    from ends_of_days
    where place_from_end = 1
    window in_order as (
        partition by opportunity_key
        order by day
    )
),

changes as (
    {%- set kinds = {
        'new': 'previous_status is null',
        'reopened': "previous_status != 'open' and status = 'open'",
        'won': "status = 'won' and coalesce(previous_status, 'open') != 'won'",
        'lost': "status = 'lost' and coalesce(previous_status, 'open') != 'lost'",
        'archived': "status = 'archived' and coalesce(previous_status, 'open') != 'archived'",
        'deleted': "status = 'deleted'",
        'moved': "status = 'open' and previous_status = 'open'"
            ~ " and stage is distinct from previous_stage",
        'grew': "status = 'open' and previous_status = 'open'"
            ~ " and coalesce(amount, 0) > coalesce(previous_amount, 0)",
        'shrank': "status = 'open' and previous_status = 'open'"
            ~ " and coalesce(amount, 0) < coalesce(previous_amount, 0)",
    } %}
    {%- for kind, condition in kinds.items() %}
    select
        compared.*,
        '{{ kind }}' as change_type
    from compared
    where {{ condition }}
    {{- ' union all' if not loop.last }}
    {%- endfor %}
),

final as (
    select
        changes.day,
        changes.opportunity_key,
        changes.change_type,
        opportunities.source_system,
        opportunities.project_id,
        opportunities.opportunity_id,
        opportunities.currency,
        changes.previous_stage,
        changes.stage,
        cast(changes.previous_amount as {{ type_money() }}) as previous_amount,
        changes.amount,
        cast(
            case
                when changes.change_type in ('new', 'reopened', 'grew', 'shrank')
                    then coalesce(case when changes.status = 'open' then changes.amount end, 0)
                else 0
            end
            - case
                when changes.change_type in ('won', 'lost', 'archived', 'deleted', 'grew', 'shrank')
                    then coalesce(
                        case when changes.previous_status = 'open' then changes.previous_amount end,
                        0
                    )
                else 0
            end as {{ type_money() }}
        ) as open_value_change,
        {{ built_at() }} as updated_at
    from changes
    inner join opportunities on changes.opportunity_key = opportunities.opportunity_key
)

select * from final
