{{ config(
    materialized='table',
    indexes=[
        {'columns': ['source_system', 'project_id', 'order_id', 'visit_number'], 'unique': true},
    ],
    post_hook='{{ gather_statistics(this) }}',
) }}

{{ order_visits(ref('int_stage_intervals')) }}
