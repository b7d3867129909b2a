{% macro sla_state(seconds, limit_seconds, near_pct) -%}
    case
        when {{ seconds }} is null or {{ limit_seconds }} is null then null
        when {{ seconds }} >= {{ limit_seconds }} then 'over'
        when {{ seconds }} * 100 >= {{ limit_seconds }} * {{ near_pct }} then 'near'
        else 'ok'
    end
{%- endmacro %}
