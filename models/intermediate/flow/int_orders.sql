{{ config(
    materialized=flow_materialized(),
    incremental_strategy='by_entity',
    on_schema_change='append_new_columns',
    indexes=[{'columns': ['source_system', 'project_id', 'order_id'], 'unique': true}],
    post_hook=['{{ gather_statistics(this) }}', '{{ remember_flow_position() }}'],
) }}

{{ orders(
    those_changed(ref('int_order_visits'), 'order_id'),
    those_changed(ref('int_order_group_visits'), 'order_id'),
    those_changed(ref('int_order_cycles'), 'order_id'),
) }}
