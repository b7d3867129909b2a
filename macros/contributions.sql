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
