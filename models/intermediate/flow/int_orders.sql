{{ config(
    materialized=flow_materialized(),
    incremental_strategy='by_entity',
    on_schema_change='append_new_columns',
    indexes=[
        {'columns': ['source_system', 'project_id', 'order_id'], 'unique': true},
        {'columns': ['source_system', 'project_id', 'last_status_group_id']},
    ],
    post_hook=[
        '{{ gather_statistics(this) }}',
        '{{ remember_flow_position() }}',
        "{{ keep_tail(live_orders('written')) }}",
    ],
) }}

{{ orders(
    those_changed(ref('int_order_visits'), 'order_id'),
    those_changed(ref('int_order_group_visits'), 'order_id'),
    those_changed(ref('int_order_cycles'), 'order_id'),
) }}
