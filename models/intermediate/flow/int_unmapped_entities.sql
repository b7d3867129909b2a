{{ config(
    materialized=flow_materialized(),
    incremental_strategy='by_entity',
    on_schema_change='append_new_columns',
    meta={
        'touches': [
            {
                'at': 'last_entered_at',
                'by': [
                    'report_version', 'pipeline_id', 'stage_id', 'entity_type', 'entity_id', 'visits',
                    'first_entered_at',
                ],
            },
        ],
    },
    indexes=[{'columns': ['source_system', 'project_id', 'entity_type', 'entity_id']}],
    post_hook=['{{ gather_statistics(this) }}', '{{ remember_flow_position() }}'],
) }}

with

timeline as (
    select * from {{ ref('deal_stage_timeline') }}
    where sub_key is null
    {{ where_changed(word='and') }}
),

final as (
    select
        report_version,
        source_system,
        project_id,
        pipeline_id,
        stage_id,
        entity_type,
        entity_id,
        count(*) as visits,
        min(entered_at) as first_entered_at,
        max(entered_at) as last_entered_at
    from timeline
    group by
        report_version,
        source_system,
        project_id,
        pipeline_id,
        stage_id,
        entity_type,
        entity_id
)

select * from final
