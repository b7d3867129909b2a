{{ config(
    materialized=flow_materialized(),
    incremental_strategy='by_entity',
    on_schema_change='append_new_columns',
    indexes=[
        {'columns': ['source_system', 'project_id', 'entity_type', 'entity_id', 'visit_number'], 'unique': true},
    ],
    post_hook=[
        '{{ gather_statistics(this) }}', '{{ count_stages() }}', '{{ remember_flow_position() }}',
    ],
) }}

{{ stage_intervals(those_changed(ref('stg_stage_events'))) }}
