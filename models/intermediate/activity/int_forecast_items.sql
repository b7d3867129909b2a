{{ config(materialized='table', post_hook='{{ gather_statistics(this) }}') }}

{#- What is forecast, and from which step on an item may bring it. -#}
{%- set forecasts = {
    'agreements': {'entry': 'coalesce(call_day, proposal_day)', 'event': 'agreement_day'},
    'lists_out': {'entry': 'agreement_day', 'event': 'list_out_day'},
} -%}

with

items as (
    select * from {{ ref('fct_pipeline_items') }}
    where excluded_reason is null
),

projects as (
    select * from {{ ref('stg_projects') }}
),

dated as (
    select
        items.source_system,
        items.project_id,
        items.rep_id,
        items.sublist_key is not null as is_of_list,
        {%- for step in ['call', 'proposal', 'agreement', 'list_out'] %}
        {{ day_of_date('items.' ~ step ~ '_date') }} as {{ step }}_day,
        {%- endfor %}
        {{ local_day('items.closed_at', 'projects.timezone') }} as closed_day
    from items
    inner join projects
        on
            items.source_system = projects.source_system
            and items.project_id = projects.project_id
),

-- A step that was noted before the one it follows from began with itself.
awaited as (
    {%- for kpi, days in forecasts.items() %}
    select
        source_system,
        project_id,
        rep_id,
        '{{ kpi }}' as kpi,
        is_of_list,
        least({{ days.entry }}, {{ days.event }}) as entry_day,
        {{ days.event }} as event_day,
        closed_day
    from dated
    where coalesce({{ days.entry }}, {{ days.event }}) is not null
    {%- if not loop.last %}
    union all
    {%- endif %}
    {%- endfor %}
),

final as (
    select
        source_system,
        project_id,
        rep_id,
        kpi,
        is_of_list,
        entry_day,
        event_day,
        closed_day,
        cast(count(*) as integer) as items
    from awaited
    group by
        source_system,
        project_id,
        rep_id,
        kpi,
        is_of_list,
        entry_day,
        event_day,
        closed_day
)

select * from final
