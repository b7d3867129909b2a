{% macro pct(numerator, denominator) -%}
    round(100 * cast({{ numerator }} as {{ type_number() }}) / nullif({{ denominator }}, 0), 2)
{%- endmacro %}

{% macro ratio(numerator, denominator, decimals=2) -%}
    round(cast({{ numerator }} as {{ type_number() }}) / nullif({{ denominator }}, 0), {{ decimals }})
{%- endmacro %}

{% macro flag(condition) -%}
    case when {{ condition }} then 1 else 0 end
{%- endmacro %}

{% macro percentile_seconds(share, column) -%}
    {#- Engines interpolate in floating point: a half would be rounded down as often as up. -#}
    cast(round(round(cast(
        percentile_cont({{ share }}) within group (order by {{ column }}) as {{ type_number() }}
    ), 4), 0) as bigint)
{%- endmacro %}

{% macro percentile(share, column, decimals=2) -%}
    round(round(cast(
        percentile_cont({{ share }}) within group (order by {{ column }}) as {{ type_number() }}
    ), {{ decimals + 4 }}), {{ decimals }})
{%- endmacro %}

{% macro mean_seconds(column) -%}
    cast(round(avg({{ column }}), 0) as bigint)
{%- endmacro %}

{% macro mean_of_present(first, second, decimals=2) -%}
    round((coalesce({{ first }}, {{ second }}) + coalesce({{ second }}, {{ first }})) / 2, {{ decimals }})
{%- endmacro %}
