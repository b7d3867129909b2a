{{ config(materialized='view') }}

with

deals as (
    select * from {{ ref('deal_metrics') }}
),

projects as (
    select * from {{ ref('stg_projects') }}
),

possible as (
    select
        deals.*,
        coalesce(projects.timezone, 'UTC') as timezone
    from deals
    left join projects
        on
            deals.source_system = projects.source_system
            and deals.project_id = projects.project_id
    where
        not {{ is_implausible('deals.started_at') }}
        and not coalesce({{ is_implausible('deals.finished_at') }}, false)
),

{%- set moves = ['started', 'finished'] %}

final as (
    {%- for move in moves %}
    select
        report_version,
        source_system,
        project_id,
        entity_type,
        entity_id,
        cast('{{ move }}' as {{ type_label() }}) as move,
        {{ date_of_day(local_day(move ~ '_at', 'timezone')) }} as move_date,
        {{ 1 if move == 'started' else 0 }} as is_start,
        {{ 1 if move == 'finished' else 0 }} as is_finish,
        {%- for clock in ['seconds', 'working_seconds'] %}
        {{ 'age_at_finish_' ~ clock if move == 'finished' else 'cast(null as bigint)' }}
            as age_at_finish_{{ clock }},
        {%- endfor %}
        updated_at
    from possible
    where {{ move }}_at is not null
    {%- if not loop.last %}
    union all
    {%- endif %}
    {%- endfor %}
)

select * from final
