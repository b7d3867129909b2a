{{ config(
    materialized='table',
    pre_hook='{{ plan_hash_joins() }}',
    post_hook='{{ gather_statistics(this) }}',
) }}

with

made_for as (
    select * from {{ ref('int_forecast_days') }}
    where {{ forecast_is_to_build() }}
),

items as (
    select * from {{ ref('int_forecast_items') }}
),

-- What could be known at the start of the day.
known as (
    select
        made_for.source_system,
        made_for.project_id,
        made_for.made_for_day,
        made_for.last_of_month,
        items.rep_id,
        items.kpi,
        items.is_of_list,
        items.entry_day,
        items.items,
        case when items.event_day < made_for.made_for_day then items.event_day end as event_day,
        case
            when items.closed_day < made_for.made_for_day
                then greatest(items.closed_day, items.entry_day)
        end as closed_day
    from made_for
    inner join items
        on
            made_for.source_system = items.source_system
            and made_for.project_id = items.project_id
            and made_for.made_for_day > items.entry_day
            and made_for.made_for_day - {{ forecast_learned_days() }} <= items.entry_day
),

gone_by as (
    select
        known.*,
        coalesce(event_day, closed_day, made_for_day - 1) - entry_day as last_age,
        event_day is not null as has_event,
        event_day is null and closed_day is null as is_in_flight,
        case
            when event_day is null and closed_day is null then last_of_month - entry_day
        end as age_at_month_end,
        entry_day >= made_for_day - {{ forecast_recent_days() }} as is_recent
    from known
),

-- When it entered says nothing of an item that its ages do not; days would be most of the rows.
final as (
    select
        source_system,
        project_id,
        made_for_day,
        last_of_month,
        rep_id,
        kpi,
        is_of_list,
        last_age,
        age_at_month_end,
        has_event,
        is_in_flight,
        is_recent,
        cast(sum(items) as integer) as items
    from gone_by
    group by
        made_for_day,
        last_age,
        rep_id,
        kpi,
        is_of_list,
        has_event,
        is_in_flight,
        is_recent,
        age_at_month_end,
        last_of_month,
        project_id,
        source_system
)

select * from final
