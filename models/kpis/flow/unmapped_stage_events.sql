{#- How many deals or orders are named as samples. -#}
{%- set samples = 5 -%}

with

timeline as (
    select * from {{ ref('deal_stage_timeline') }}
),

entities as (
    select
        report_version,
        source_system,
        project_id,
        pipeline_id,
        stage_id,
        entity_id,
        count(*) as visits,
        min(entered_at) as first_entered_at,
        max(entered_at) as last_entered_at
    from timeline
    where sub_key is null
    group by
        report_version,
        source_system,
        project_id,
        pipeline_id,
        stage_id,
        entity_type,
        entity_id
),

ranked_entities as (
    select
        entities.*,
        row_number() over (
            partition by report_version, source_system, project_id, pipeline_id, stage_id
            order by last_entered_at desc, entity_id asc
        ) as place
    from entities
),

final as (
    select
        {{ dbt.concat([
            'cast(report_version as ' ~ type_label() ~ ')', "'|'", 'source_system', "'|'",
            'project_id', "'|'", "coalesce(pipeline_id, '*')", "'|'", 'stage_id',
        ]) }} as unmapped_stage_key,
        report_version,
        source_system,
        project_id,
        pipeline_id,
        stage_id,
        {{ dbt.listagg(
            'case when place <= ' ~ samples ~ ' then entity_id end', "', '", 'order by place'
        ) }} as sample_entities,
        cast(sum(visits) as bigint) as event_count,
        min(first_entered_at) as first_seen_at,
        max(last_entered_at) as last_seen_at,
        {{ built_at() }} as updated_at
    from ranked_entities
    group by
        report_version,
        source_system,
        project_id,
        pipeline_id,
        stage_id
)

select * from final
