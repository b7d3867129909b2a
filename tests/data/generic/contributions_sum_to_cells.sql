{# Every KPI is a grouping of facts: makes each cell again from the fact's rows, by the formula that
   the column's meta states (numerator, denominator, quantile), and gives the cells that differ, and
   the facts that are in no cell, unless the KPI says that it does not take all. #}
{% test contributions_sum_to_cells(model, fact) %}
{%- if execute %}
    {%- set kpi = kpi_node(model.identifier) %}
    {%- set measures = kpi_measures(kpi) %}
    {%- set grain = kpi.config.meta.grain %}

with

cell as (
    select * from {{ model }}
),

fact as (
    select * from {{ facts_of_cells(kpi, fact) }} as facts
    {%- if 'excluded_reason' in kpi_node(fact.identifier).columns %}
    where excluded_reason is null
    {%- endif %}
),

recomputed as (
    select
        {% for column in grain -%}
        cell.{{ column }},
        {% endfor -%}
        {% for column, measure in measures.items() -%}
        {{ measure_expression(measure) }} as {{ column }},
        {% endfor -%}
        count(*) as contributions
    from cell
    inner join fact on {{ fact_join(kpi) }}
    group by
        {% for column in grain -%}
        cell.{{ column }}{{ ',' if not loop.last }}
        {% endfor %}
),

compared as (
    {%- for column, measure in measures.items() %}
    select
        '{{ column }}' as kpi_column,
        cast(cell.{{ column }} as {{ type_number() }}) as stated,
        {%- if is_zero_without_facts(measure) %}
        coalesce(cast(recomputed.{{ column }} as {{ type_number() }}), 0) as made_again
        {%- else %}
        cast(recomputed.{{ column }} as {{ type_number() }}) as made_again
        {%- endif %}
    from cell
    left join recomputed
        on
            {% for key in grain -%}
            {{ 'and ' if not loop.first }}cell.{{ key }} = recomputed.{{ key }}
            {% endfor %}
    {{ 'union all' if not loop.last }}
    {%- endfor %}
){% if kpi.config.meta.get('takes_all_facts', true) %},

without_cell as (
    select count(*) as facts
    from fact
    left join cell on {{ fact_join(kpi) }}
    where cell.{{ grain[0] }} is null
){% endif %}

select
    kpi_column,
    stated,
    made_again
from compared
where stated is distinct from made_again
{%- if kpi.config.meta.get('takes_all_facts', true) %}

union all

select
    'facts that are in no cell' as kpi_column,
    0 as stated,
    facts as made_again
from without_cell
where facts > 0
{%- endif %}
{%- else %}
select 1 as nothing_to_parse from {{ model }} where false
{%- endif %}
{% endtest %}
