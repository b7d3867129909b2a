{{ config(
    materialized='table',
    indexes=[
        {
            'columns': ['source_system', 'project_id', 'order_id', 'cycle_rule_id'],
            'unique': true,
        },
    ],
    post_hook='{{ gather_statistics(this) }}',
) }}

{{ order_cycles(ref('int_order_visits'), ref('int_order_group_visits')) }}
