{#-
    `flow_stages` counts the visits of int_stage_intervals, by stage, in the transactions that build
    it, and keeps an instant that none was entered after. So a run that looks which stages were
    visited, or whether a visit lay ahead, does not read all visits.
-#}

{% macro flow_stages(beside) -%}
    {{ return(beside.incorporate(path={'identifier': 'flow_stages'})) }}
{%- endmacro %}

{#- For a post-hook of int_stage_intervals: all anew, unless the counts were kept while rows were
    replaced. -#}
{% macro count_stages() -%}
    {{ return(adapter.dispatch('count_stages')()) }}
{%- endmacro %}

{% macro default__count_stages() -%}
    {%- set stages = flow_stages(this) -%}
    {%- if not builds_changes() or load_relation(stages) is none -%}
    {%- set counted %}
    select
        source_system,
        project_id,
        pipeline_id,
        stage_id,
        count(*) as visits,
        max(entered_at) as latest_entered_at
    from {{ this }}
    group by source_system, project_id, pipeline_id, stage_id
    {%- endset %}
    create table if not exists {{ stages }} as {{ counted }} with no data;
    delete from {{ stages }};
    insert into {{ stages }} {{ counted }}
    {%- endif -%}
{%- endmacro %}

{% macro spark__count_stages() -%} {%- endmacro %}

{#- Before the rows of int_stage_intervals are replaced by those of another relation. -#}
{% macro recount_stages(replaced, by) -%}
    {%- set stages = flow_stages(replaced) -%}
    {%- if replaced.identifier == 'int_stage_intervals' and load_relation(stages) is not none %}
    with counted as (
        delete from {{ stages }}
        returning *
    )
    insert into {{ stages }}
    select
        source_system,
        project_id,
        pipeline_id,
        stage_id,
        sum(visits),
        max(latest_entered_at)
    from (
        select * from counted
        union all
        select source_system, project_id, pipeline_id, stage_id, 1, entered_at
        from {{ by }}
        union all
        select source_system, project_id, pipeline_id, stage_id, -1, null
        from {{ replaced }}
        where {{ is_one_of(ref('int_flow_changes')) }}
    ) as counts
    group by source_system, project_id, pipeline_id, stage_id
    having sum(visits) > 0;
    {%- endif %}
{%- endmacro %}

{#- Query of the stages that were visited. -#}
{% macro visited_stages(visits) -%}
    {{ return(adapter.dispatch('visited_stages')(visits)) }}
{%- endmacro %}

{#- A unit test has visits alone. -#}
{% macro default__visited_stages(visits) -%}
    {%- if this is none -%}
    {{ spark__visited_stages(visits) }}
    {%- else -%}
    select source_system, project_id, pipeline_id, stage_id from {{ flow_stages(visits) }}
    {%- endif -%}
{%- endmacro %}

{% macro spark__visited_stages(visits) -%}
    select distinct source_system, project_id, pipeline_id, stage_id from {{ visits }}
{%- endmacro %}

{#- Condition that a visit may have been entered after an instant, in a model beside the counts. -#}
{% macro is_any_visit_after(instant) -%}
    {%- set stages = load_relation(flow_stages(this)) -%}
    {%- if stages is none -%} true {%- else -%}
    exists (select 1 from {{ stages }} where latest_entered_at > {{ instant }})
    {%- endif -%}
{%- endmacro %}
