{#- What is forecast, and from which step on an item may bring it. -#}
{%- set forecasts = {
    'agreements': {'entry': 'coalesce(call_day, proposal_day)', 'event': 'agreement_day'},
    'lists_out': {'entry': 'agreement_day', 'event': 'list_day'},
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
        {%- for day, instant in {
            'call_day': 'call_conducted_at',
            'proposal_day': 'proposal_at',
            'agreement_day': 'agreement_at',
            'list_day': 'partner_list_sent_at',
            'closed_day': 'closed_at',
        }.items() %}
        {{ local_day('items.' ~ instant, 'projects.timezone') }} as {{ day }},
        {%- endfor %}
        items.source_system,
        items.project_id,
        items.rep_id
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
        least({{ days.entry }}, {{ days.event }}) as entry_day,
        {{ days.event }} as event_day,
        closed_day
    from dated
    where coalesce({{ days.entry }}, {{ days.event }}) is not null
    {{- ' union all' if not loop.last }}
    {%- endfor %}
),

final as (
    select
        source_system,
        project_id,
        rep_id,
        kpi,
        entry_day,
        event_day,
        closed_day,
        count(*) as items
    from awaited
    group by
        source_system,
        project_id,
        rep_id,
        kpi,
        entry_day,
        event_day,
        closed_day
)

select * from final
