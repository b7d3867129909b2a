{{ config(materialized='table') }}

with

items as (
    select * from {{ ref('fct_pipeline_items') }}
    where excluded_reason is null and cohort_date is not null
),

steps as (
    select * from {{ ref('fct_item_steps') }}
    where excluded_reason is null
),

parts as (
    select
        source_system,
        project_id,
        cohort_date as day,
        {{ contents_of('cohort', ['rep_id', 'cohort_team_id', 'steps_reached']) }} as contents
    from items
    union all
    select
        source_system,
        project_id,
        step_date as day,
        {{ contents_of('step', [
            'step', 'rep_id', 'team_id', 'is_list_due_by_now', 'is_list_on_time', 'is_list_overdue',
            'is_list_with_sale', 'has_impossible_duration', 'list_size', 'sales_from_list',
            'seconds_since_step_before',
        ]) | indent(8) }} as contents
    from steps
),

final as (
    select
        source_system,
        project_id,
        day,
        cast(sum(contents) as {{ type_number() }}) as contents
    from parts
    group by
        day,
        project_id,
        source_system
)

select * from final
