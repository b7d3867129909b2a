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
    meta={
        'touches': [
            {
                'at': 'left_at',
                'id': 'order_id',
                'by': [
                    'order_id', 'stage_group_id', 'group_name', 'is_urgent', 'sla_state', 'seconds',
                    'working_seconds', 'paused_seconds',
                ],
            },
        ],
    },
    post_hook=['{{ gather_statistics(this) }}', '{{ remember_flow_position() }}'],
) }}

{{ order_group_visits(
    those_changed(ref('int_order_visits'), 'order_id'),
    those_changed(ref('stg_order_items'), 'order_id'),
) }}
