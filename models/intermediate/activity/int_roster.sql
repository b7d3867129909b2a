{{ config(materialized='table', post_hook='{{ gather_statistics(this) }}') }}

with

reps as (
    select * from {{ ref('stg_reps') }}
    where not is_deleted
),

rep_records as (
    select * from {{ ref('int_rep_records') }}
),

owners as (
    select * from {{ ref('stg_owners') }}
),

periods as (
    select
        source_system,
        project_id,
        rep_id,
        rep_name,
        team_id,
        active_from,
        active_to
    from reps
    where active_to is null or active_from <= active_to
),

-- Where the source states no time of a rep, what they did tells one.
periods_of_unlisted as (
    select
        rep_records.source_system,
        rep_records.project_id,
        rep_records.rep_id,
        coalesce(owners.owner_name, rep_records.rep_id) as rep_name,
        cast('unassigned' as {{ type_label() }}) as team_id,
        rep_records.first_date as active_from,
        rep_records.last_date as active_to
    from rep_records
    left join owners
        on
            rep_records.source_system = owners.source_system
            and rep_records.project_id = owners.project_id
            and rep_records.rep_id = owners.owner_id
    left join periods
        on
            rep_records.source_system = periods.source_system
            and rep_records.project_id = periods.project_id
            and rep_records.rep_id = periods.rep_id
    where
        periods.rep_id is null
        and rep_records.rep_id != 'unassigned'
        and rep_records.first_date is not null
),

-- Where periods begin or end anew.
boundaries as (
    select
        source_system,
        project_id,
        rep_id,
        active_from as day_from
    from periods
    union
    select
        source_system,
        project_id,
        rep_id,
        {{ date_of_day(day_of_date('active_to') ~ ' + 1') }} as day_from
    from periods
    where active_to is not null
),

spans as (
    select
        source_system,
        project_id,
        rep_id,
        day_from,
        {{ date_of_day(day_of_date(
            'lead(day_from) over (partition by source_system, project_id, rep_id order by day_from)'
        ) ~ ' - 1') }} as day_to
    from boundaries
),

-- Of periods that overlap the one that began last counts.
ranked_spans as (
    select
        periods.source_system,
        periods.project_id,
        periods.rep_id,
        periods.rep_name,
        periods.team_id,
        spans.day_from as active_from,
        spans.day_to as active_to,
        row_number() over (
            partition by
                periods.source_system,
                periods.project_id,
                periods.rep_id,
                spans.day_from
            order by periods.active_from desc
        ) as place
    from spans
    inner join periods
        on
            spans.source_system = periods.source_system
            and spans.project_id = periods.project_id
            and spans.rep_id = periods.rep_id
            and spans.day_from >= periods.active_from
            and (periods.active_to is null or spans.day_from <= periods.active_to)
),

final as (
    select
        source_system,
        project_id,
        rep_id,
        rep_name,
        team_id,
        active_from,
        active_to,
        true as is_listed
    from ranked_spans
    where place = 1
    union all
    select
        source_system,
        project_id,
        rep_id,
        rep_name,
        team_id,
        active_from,
        active_to,
        false as is_listed
    from periods_of_unlisted
)

select * from final
