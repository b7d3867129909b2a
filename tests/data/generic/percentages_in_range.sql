{# Every column of the model that ends in _pct lies between 0 and 100, or is empty. #}
{% test percentages_in_range(model) %}
{%- set conditions = [] %}
{%- if execute %}
    {%- for column in kpi_node(model.identifier).columns if column.endswith('_pct') %}
        {%- do conditions.append(column ~ ' not between 0 and 100') %}
    {%- endfor %}
{%- endif %}
select *
from {{ model }}
where {{ conditions | join('\n    or ') or 'false' }}
{% endtest %}
