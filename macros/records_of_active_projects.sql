{% macro records_of_active_projects(sources) -%}
    select
        records.*,
        coalesce(projects.timezone, 'UTC') as timezone,
        coalesce(projects.currency, 'XXX') as project_currency
    from (
        {%- for source in sources %}
        select * from {{ source }}
        {{- ' union all' if not loop.last }}
        {%- endfor %}
    ) as records
    left join {{ ref('stg_projects') }} as projects
        on
            records.source_system = projects.source_system
            and records.project_id = projects.project_id
    where coalesce(projects.is_active, true)
{%- endmacro %}
