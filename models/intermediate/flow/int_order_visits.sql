{{ config(
    materialized=flow_materialized(),
    incremental_strategy='by_entity',
    on_schema_change='append_new_columns',
    indexes=[
        {'columns': ['source_system', 'project_id', 'order_id', 'visit_number'], 'unique': true},
    ],
    post_hook=[
        '{{ gather_statistics(this) }}',
        '{{ remember_flow_position() }}',
        "{{ keep_tail(live_order_visits('written')) }}",
    ],
) }}

{{ order_visits(
    those_changed(ref('int_stage_intervals')),
    those_changed(ref('int_deleted_entities')),
) }}
