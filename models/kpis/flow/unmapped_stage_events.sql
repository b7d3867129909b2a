{{ config(
    materialized=flow_materialized(),
    incremental_strategy='by_project',
    on_schema_change='append_new_columns',
    post_hook=['{{ remember_flow_position() }}', '{{ forget_touched() }}'],
) }}

{#- How many deals or orders are named as samples. -#}
{%- set samples = 5 -%}

with

-- One for each use: PostgreSQL would read what is used twice in a single process.
entities as (
    select * from {{ those_touched(ref('int_unmapped_entities')) }}
),

entities_of_stages as (
    select * from {{ those_touched(ref('int_unmapped_entities')) }}
),

stages as (
    select
        report_version,
        source_system,
        project_id,
        pipeline_id,
        stage_id,
        cast(sum(visits) as bigint) as event_count,
        min(first_entered_at) as first_seen_at,
        max(last_entered_at) as last_seen_at
    from entities_of_stages
    group by
        report_version,
        source_system,
        project_id,
        pipeline_id,
        stage_id
),

-- All entities are sorted by stage: by a number that is faster than by what names it.
numbered_stages as (
    select
        stages.*,
        row_number() over (
            order by report_version, source_system, project_id, pipeline_id, stage_id
        ) as stage_number
    from stages
),

ranked_entities as (
    select
        numbered_stages.stage_number,
        entities.entity_id,
        row_number() over (
            partition by numbered_stages.stage_number
            order by entities.last_entered_at desc, entities.entity_id asc
        ) as place
    from entities
    inner join numbered_stages
        on
            entities.report_version = numbered_stages.report_version
            and entities.source_system = numbered_stages.source_system
            and entities.project_id = numbered_stages.project_id
            and coalesce(entities.pipeline_id, '') = coalesce(numbered_stages.pipeline_id, '')
            and (entities.pipeline_id is null) = (numbered_stages.pipeline_id is null)
            and entities.stage_id = numbered_stages.stage_id
),

samples as (
    select
        stage_number,
        {{ dbt.listagg('entity_id', "', '", 'order by place') }} as sample_entities
    from ranked_entities
    where place <= {{ samples }}
    group by stage_number
),

final as (
    select
        {{ dbt.concat([
            'cast(report_version as ' ~ type_label() ~ ')', "'|'", 'source_system', "'|'",
            'project_id', "'|'", "coalesce(pipeline_id, '*')", "'|'", 'stage_id',
        ]) }} as unmapped_stage_key,
        numbered_stages.report_version,
        numbered_stages.source_system,
        numbered_stages.project_id,
        numbered_stages.pipeline_id,
        numbered_stages.stage_id,
        samples.sample_entities,
        numbered_stages.event_count,
        numbered_stages.first_seen_at,
        numbered_stages.last_seen_at,
        {{ built_at() }} as updated_at
    from numbered_stages
    inner join samples on numbered_stages.stage_number = samples.stage_number
)

select * from final
