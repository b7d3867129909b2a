{# Every KPI is a grouping of facts: makes each cell again from the fact's rows, by the formula that
   the column's meta states (numerator, denominator, quantile), and gives the cells that differ. #}
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
    select * from {{ fact }}
    where excluded_reason is null
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
    {%- for column in measures %}
    select
        '{{ column }}' as kpi_column,
        cast(cell.{{ column }} as {{ type_number() }}) as stated,
        cast(recomputed.{{ column }} as {{ type_number() }}) as made_again
    from cell
    left join recomputed
        on
            {% for key in grain -%}
            {{ 'and ' if not loop.first }}cell.{{ key }} = recomputed.{{ key }}
            {% endfor %}
    {{ 'union all' if not loop.last }}
    {%- endfor %}
),

without_cell as (
    select count(*) as facts
    from fact
    left join cell on {{ fact_join(kpi) }}
    where cell.{{ grain[0] }} is null
)

select
    kpi_column,
    stated,
    made_again
from compared
where stated is distinct from made_again

union all

select
    'facts that are in no cell' as kpi_column,
    0 as stated,
    facts as made_again
from without_cell
where facts > 0
{%- else %}
select 1 as nothing_to_parse from {{ model }} where false
{%- endif %}
{% endtest %}
