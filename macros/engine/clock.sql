{% macro epoch_second(instant) -%}
    {{ return(adapter.dispatch('epoch_second')(instant)) }}
{%- endmacro %}

{% macro default__epoch_second(instant) -%}
    cast(floor(date_part('epoch', {{ instant }})) as bigint)
{%- endmacro %}

{% macro spark__epoch_second(instant) -%}
    cast(floor(cast({{ instant }} as double)) as bigint)
{%- endmacro %}

{% macro instant_of_second(second) -%}
    {{ return(adapter.dispatch('instant_of_second')(second)) }}
{%- endmacro %}

{% macro default__instant_of_second(second) -%}
    to_timestamp({{ second }})
{%- endmacro %}

{% macro spark__instant_of_second(second) -%}
    timestamp_seconds({{ second }})
{%- endmacro %}

{% macro day_of_second(second) -%}
    {{ return(adapter.dispatch('day_of_second')(second)) }}
{%- endmacro %}

{% macro default__day_of_second(second) -%}
    cast({{ second }} / 86400 as integer)
{%- endmacro %}

{% macro spark__day_of_second(second) -%}
    cast({{ second }} div 86400 as integer)
{%- endmacro %}

{% macro utc_offset(second, time_zone) -%}
    {{ return(adapter.dispatch('utc_offset')(second, time_zone)) }}
{%- endmacro %}

{% macro default__utc_offset(second, time_zone) -%}
    cast(
        extract(epoch from to_timestamp({{ second }}) at time zone {{ time_zone }}) - {{ second }}
        as integer
    )
{%- endmacro %}

{% macro spark__utc_offset(second, time_zone) -%}
    cast(
        unix_timestamp(from_utc_timestamp(timestamp_seconds({{ second }}), {{ time_zone }}))
        - {{ second }} as integer
    )
{%- endmacro %}

{% macro local_day(instant, time_zone) -%}
    {{ return(adapter.dispatch('local_day')(instant, time_zone)) }}
{%- endmacro %}

{% macro default__local_day(instant, time_zone) -%}
    (cast({{ instant }} at time zone {{ time_zone }} as date) - cast('1970-01-01' as date))
{%- endmacro %}

{% macro spark__local_day(instant, time_zone) -%}
    datediff(from_utc_timestamp({{ instant }}, {{ time_zone }}), cast('1970-01-01' as date))
{%- endmacro %}

{% macro local_hour(instant, time_zone) -%}
    {{ return(adapter.dispatch('local_hour')(instant, time_zone)) }}
{%- endmacro %}

{% macro default__local_hour(instant, time_zone) -%}
    cast(extract(hour from {{ instant }} at time zone {{ time_zone }}) as integer)
{%- endmacro %}

{% macro spark__local_hour(instant, time_zone) -%}
    hour(from_utc_timestamp({{ instant }}, {{ time_zone }}))
{%- endmacro %}

{% macro day_of_date(date) -%}
    {{ return(adapter.dispatch('day_of_date')(date)) }}
{%- endmacro %}

{% macro default__day_of_date(date) -%}
    ({{ date }} - cast('1970-01-01' as date))
{%- endmacro %}

{% macro spark__day_of_date(date) -%}
    datediff({{ date }}, cast('1970-01-01' as date))
{%- endmacro %}

{% macro date_of_day(day) -%}
    {{ return(adapter.dispatch('date_of_day')(day)) }}
{%- endmacro %}

{% macro default__date_of_day(day) -%}
    (cast('1970-01-01' as date) + {{ day }})
{%- endmacro %}

{% macro spark__date_of_day(day) -%}
    date_add(cast('1970-01-01' as date), {{ day }})
{%- endmacro %}

{% macro weekday_of_day(day) -%}
    {#- 1970-01-01 was a Thursday; days before it are negative, and so is their remainder. -#}
    ((({{ day }} + 3) % 7 + 7) % 7 + 1)
{%- endmacro %}
