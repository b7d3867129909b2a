{% macro seconds_between(started_at, ended_at) -%}
    {{ return(adapter.dispatch('seconds_between')(started_at, ended_at)) }}
{%- endmacro %}

{% macro default__seconds_between(started_at, ended_at) -%}
    cast(floor(extract(epoch from {{ ended_at }} - {{ started_at }})) as bigint)
{%- endmacro %}

{% macro spark__seconds_between(started_at, ended_at) -%}
    cast(floor(cast({{ ended_at }} as double) - cast({{ started_at }} as double)) as bigint)
{%- endmacro %}

{% macro local_month(instant, time_zone) -%}
    {{ return(adapter.dispatch('local_month')(instant, time_zone)) }}
{%- endmacro %}

{% macro default__local_month(instant, time_zone) -%}
    cast(date_trunc('month', {{ instant }} at time zone {{ time_zone }}) as date)
{%- endmacro %}

{% macro spark__local_month(instant, time_zone) -%}
    trunc(from_utc_timestamp({{ instant }}, {{ time_zone }}), 'MM')
{%- endmacro %}

{% macro add_months(month, count) -%}
    {{ return(adapter.dispatch('add_months')(month, count)) }}
{%- endmacro %}

{% macro default__add_months(month, count) -%}
    cast({{ month }} + make_interval(months => {{ count }}) as date)
{%- endmacro %}

{% macro spark__add_months(month, count) -%}
    add_months({{ month }}, {{ count }})
{%- endmacro %}
