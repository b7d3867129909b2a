{% macro weighted_forecast(values_column, weights_column, scenario_filter=true) -%}
    case
        when {{ scenario_filter }}
            then
                sum({{ values_column }} * {{ weights_column }})
                / nullif(
                    sum({{ weights_column }}) filter (where {{ values_column }} is not null), 0
                )
        else avg({{ values_column }})
    end
{%- endmacro %}

{% macro scenario_toggle(column, scenario_enabled, true_value, false_value) -%}
    case when {{ column }} = {{ scenario_enabled }} then {{ true_value }} else {{ false_value }} end
{%- endmacro %}

{% macro weighted_pipeline_scenario(
    base_amount, win_probability, pipeline_stage_weight, apply_weighting
) -%}
    case
        when {{ apply_weighting }}
            then {{ base_amount }} * {{ win_probability }} * {{ pipeline_stage_weight }}
        else {{ base_amount }}
    end
{%- endmacro %}
