{% macro months_between(earlier_month, later_month) -%}
    cast(
        (extract(year from {{ later_month }}) - extract(year from {{ earlier_month }})) * 12
        + extract(month from {{ later_month }}) - extract(month from {{ earlier_month }})
        as integer
    )
{%- endmacro %}

{% macro months_to(instant, record='known') -%}
    {%- set month = local_month(record ~ '.' ~ instant, record ~ '.timezone') -%}
    case
        when {{ record }}.{{ instant }} is null then null
        when {{ record }}.{{ instant }} < {{ record }}.created_at then 0
        else {{ months_between(record ~ '.created_month', month) }}
    end
{%- endmacro %}
