{#- How many deals or orders are named as samples. -#}
{%- set samples = 5 -%}

with

entities as (
    select
        {{ dbt.concat([
            'cast(report_version as ' ~ type_label() ~ ')', "'|'", 'source_system', "'|'",
            'project_id', "'|'", "coalesce(pipeline_id, '*')", "'|'", 'stage_id',
        ]) }} as unmapped_stage_key,
        unmapped_entities.*
    from {{ ref('int_unmapped_entities') }} as unmapped_entities
),

ranked_entities as (
    select
        unmapped_stage_key,
        entity_id,
        row_number() over (
            partition by unmapped_stage_key
            order by last_entered_at desc, entity_id asc
        ) as place
    from entities
),

samples as (
    select
        unmapped_stage_key,
        {{ dbt.listagg('entity_id', "', '", 'order by place') }} as sample_entities
    from ranked_entities
    where place <= {{ samples }}
    group by unmapped_stage_key
),

stages as (
    select
        unmapped_stage_key,
        report_version,
        source_system,
        project_id,
        pipeline_id,
        stage_id,
        cast(sum(visits) as bigint) as event_count,
        min(first_entered_at) as first_seen_at,
        max(last_entered_at) as last_seen_at
    from entities
    group by
        unmapped_stage_key,
        report_version,
        source_system,
        project_id,
        pipeline_id,
        stage_id
),

final as (
    select
        stages.unmapped_stage_key,
        stages.report_version,
        stages.source_system,
        stages.project_id,
        stages.pipeline_id,
        stages.stage_id,
        samples.sample_entities,
        stages.event_count,
        stages.first_seen_at,
        stages.last_seen_at,
        {{ built_at() }} as updated_at
    from stages
    inner join samples on stages.unmapped_stage_key = samples.unmapped_stage_key
)

select * from final
