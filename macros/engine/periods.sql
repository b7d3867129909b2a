{#- First day of the day, week (from Monday) or month in which an instant lies; the unit may be a
    column. -#}
{% macro local_period(unit, instant, time_zone) -%}
    {{ return(adapter.dispatch('local_period')(unit, instant, time_zone)) }}
{%- endmacro %}

{% macro default__local_period(unit, instant, time_zone) -%}
    cast(date_trunc({{ unit }}, {{ instant }} at time zone {{ time_zone }}) as date)
{%- endmacro %}

{% macro spark__local_period(unit, instant, time_zone) -%}
    cast(date_trunc({{ unit }}, from_utc_timestamp({{ instant }}, {{ time_zone }})) as date)
{%- endmacro %}
