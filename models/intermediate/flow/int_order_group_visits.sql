{{ config(
    materialized='table',
    indexes=[
        {
            'columns': ['source_system', 'project_id', 'order_id', 'group_visit_number'],
            'unique': true,
        },
    ],
    post_hook='{{ gather_statistics(this) }}',
) }}

{{ order_group_visits(ref('int_order_visits')) }}
