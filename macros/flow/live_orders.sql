{#- The models of orders, computed from the log as it is now for the orders that `keys` lists: CTEs up
    to the one that holds the rows of int_order_visits, or up to that of int_orders. -#}
{% macro live_order_visits(keys) -%}
live_events as (
    {{ rows_of_each(keys, ref('stg_stage_events')) }}
),

live_intervals as (
    {{ stage_intervals('live_events') }}
),

live_deleted_entities as (
    {{ rows_of_each(keys, ref('int_deleted_entities')) }}
),

int_order_visits as (
    {{ order_visits('live_intervals', 'live_deleted_entities') }}
)
{%- endmacro %}

{% macro live_orders(keys) -%}
{{ live_order_visits(keys) }},

live_items as (
    {{ rows_of_each(keys, ref('stg_order_items'), 'order_id') }}
),

live_group_visits as (
    {{ order_group_visits('int_order_visits', 'live_items') }}
),

live_cycles as (
    {{ order_cycles('int_order_visits', 'live_group_visits') }}
),

int_orders as (
    {{ orders('int_order_visits', 'live_group_visits', 'live_cycles') }}
)
{%- endmacro %}
