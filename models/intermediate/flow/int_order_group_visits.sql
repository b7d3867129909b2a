{{ config(
    materialized=flow_materialized(),
    incremental_strategy='by_entity',
    on_schema_change='append_new_columns',
    indexes=[
        {
            'columns': ['source_system', 'project_id', 'order_id', 'group_visit_number'],
            'unique': true,
        },
    ],
    post_hook=['{{ gather_statistics(this) }}', '{{ remember_flow_position() }}'],
) }}

{{ order_group_visits(
    those_changed(ref('int_order_visits'), 'order_id'),
    those_changed(ref('stg_order_items'), 'order_id'),
) }}
