{# What reps have, and what teams have, adds up to what all have, group by group. #}
{% test subjects_add_up(model, columns, by) %}
select
    {% for column in ['source_system', 'project_id'] + by -%}
    {{ column }},
    {% endfor -%}
    {% for column in columns -%}
    sum(case when subject_type = 'rep' then {{ column }} end) as {{ column }}_of_reps,
    sum(case when subject_type = 'team' then {{ column }} end) as {{ column }}_of_teams,
    sum(case when subject_type = 'all' then {{ column }} end) as {{ column }}_of_all{{ ',' if not loop.last }}
    {% endfor -%}
from {{ model }}
group by {{ (['source_system', 'project_id'] + by) | join(', ') }}
having
    {% for column in columns -%}
    {% for kind in ['rep', 'team'] -%}
    {{ 'or ' if not (loop.first and loop.index == 1 and column == columns[0]) -}}
    coalesce(sum(case when subject_type = '{{ kind }}' then {{ column }} end), 0)
    != coalesce(sum(case when subject_type = 'all' then {{ column }} end), 0)
    {% endfor -%}
    {% endfor %}
{% endtest %}
