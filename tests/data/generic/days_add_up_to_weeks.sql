{# What the days of a week have adds up to what the week has. #}
{% test days_add_up_to_weeks(model, columns) %}
{%- set keys = ['source_system', 'project_id', 'subject_type', 'subject_id'] %}
with

placed as (
    select
        *,
        case period_type when 'week' then period_start else {{ week_of_date('period_start') }} end
            as week_start
    from {{ model }}
)

select
    {{ keys | join(', ') }},
    week_start
from placed
group by {{ keys | join(', ') }}, week_start
having
    {% for column in columns -%}
    {{ 'or ' if not loop.first -}}
    coalesce(sum(case when period_type = 'day' then {{ column }} end), 0)
    != coalesce(sum(case when period_type = 'week' then {{ column }} end), 0)
    {% endfor %}
{% endtest %}
