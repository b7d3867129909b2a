{% macro kpi_node(name) -%}
    {%- set id = 'model.' ~ project_name ~ '.' ~ name -%}
    {%- if id not in graph.nodes -%}
        {{ exceptions.raise_compiler_error('There is no model ' ~ name) }}
    {%- endif -%}
    {{ return(graph.nodes[id]) }}
{%- endmacro %}

{% macro kpi_measures(kpi) -%}
    {%- set measures = {} -%}
    {%- for column in kpi.columns.values() -%}
        {%- set meta = column.config.meta -%}
        {%- if 'numerator' in meta or 'quantile' in meta -%}
            {%- do measures.update({column.name: meta}) -%}
        {%- endif -%}
    {%- endfor -%}
    {{ return(measures) }}
{%- endmacro %}

{% macro fact_join(kpi) -%}
    {%- for cell_column, fact_column in kpi.config.meta.fact_join.items() -%}
        {{ 'and ' if not loop.first }}cell.{{ cell_column }} = fact.{{ fact_column }}{{ ' ' }}
    {%- endfor -%}
{%- endmacro %}

{#- A relation of facts in the place of the KPI's own: each fact once for every kind of cell that it
    counts in (`meta.fact_copies`), those alone that the KPI takes (`meta.fact_where`). -#}
{% macro facts_of_cells(kpi, facts) -%}
    {%- set copies = kpi.config.meta.get('fact_copies', []) -%}
    (
        select
            {%- for copy in copies %}
            {{ copy.kind }}_of_copy.{{ copy.kind }},
            case {{ copy.kind }}_of_copy.{{ copy.kind }}
                {%- for kind, value in copy.of.items() %}
                when '{{ kind }}' then {{ value }}
                {%- endfor %}
            end as {{ copy.value }},
            {%- endfor %}
            fact.*
        from {{ facts }} as fact
        {%- for copy in copies %}
        cross join (
            {%- for kind in copy.of %}
            select cast('{{ kind }}' as {{ type_label() }}) as {{ copy.kind }}
            {{- ' union all' if not loop.last }}
            {%- endfor %}
        ) as {{ copy.kind }}_of_copy
        {%- endfor %}
        where {{ kpi.config.meta.get('fact_where', 'true') }}
    )
{%- endmacro %}

{% macro measure_expression(measure) -%}
    {%- set decimals = measure.get('decimals', 0 if 'quantile' in measure else 2) -%}
    {%- if 'quantile' in measure -%}
        round(round(cast(
            percentile_cont({{ measure.quantile }}) within group (order by {{ measure['values'] }})
            as {{ type_number() }}
        ), {{ decimals + 4 }}), {{ decimals }})
    {%- elif 'denominator' in measure -%}
        round(
            cast({{ measure.scale }} * sum({{ measure.numerator }}) as {{ type_number() }})
            / nullif(sum({{ measure.denominator }}), 0), {{ decimals }}
        )
    {%- elif is_zero_without_facts(measure) -%}
        coalesce(sum({{ measure.numerator }}), 0)
    {%- else -%}
        sum({{ measure.numerator }})
    {%- endif -%}
{%- endmacro %}

{% macro is_zero_without_facts(measure) -%}
    {{ return(not ('quantile' in measure or 'denominator' in measure or measure.get('or_empty'))) }}
{%- endmacro %}
