{#- What is forecast: the day from which on an item may bring it, and the one on which it did. A step
    that was noted before the one it follows from began with itself. -#}
{% macro forecast_steps() -%}
    {{ return({
        'agreements': {
            'entry': 'least(coalesce(call_date, proposal_date), agreement_date)',
            'event': 'agreement_date',
        },
        'lists_out': {
            'entry': 'least(agreement_date, list_out_date)',
            'event': 'list_out_date',
        },
    }) }}
{%- endmacro %}

{#- Days before a forecast whose entries it learns from: conversion, and pace of arrivals. -#}
{% macro forecast_learned_days() -%}
    {{ return(180) }}
{%- endmacro %}

{% macro forecast_recent_days() -%}
    {{ return(60) }}
{%- endmacro %}

{#- Quantile of what is never negative and has this mean and variance: of the gamma distribution that
    has both, as Wilson and Hilferty approximate it (Proceedings of the National Academy of Sciences
    17, 1931). `deviations` is the quantile of the standard normal distribution. -#}
{% macro forecast_quantile(mean, variance, deviations) -%}
    coalesce(
        {{ mean }} * power(
            greatest(
                1 - {{ variance }} / (9 * nullif({{ mean }} * {{ mean }}, 0))
                + ({{ deviations }}) * sqrt({{ variance }}) / (3 * nullif({{ mean }}, 0)),
                0
            ), 3
        ), 0
    )
{%- endmacro %}

{#- Without the last digits, which depend on the order in which floating-point numbers were summed. -#}
{% macro steady_number(number) -%}
    cast(round(cast({{ number }} as {{ type_number() }}), 9) as {{ dbt.type_float() }})
{%- endmacro %}

{#- Condition of a join of what was made for the same forecast, and has the same values of `also`. -#}
{% macro same_forecast(one, other, also=[]) -%}
    {%- for column in ['source_system', 'project_id', 'made_for_day'] + also -%}
    {{ 'and ' if not loop.first }}{{ one }}.{{ column }} = {{ other }}.{{ column }}{{ ' ' if not loop.last }}
    {%- endfor -%}
{%- endmacro %}
