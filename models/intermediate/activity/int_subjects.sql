{{ config(materialized='table', post_hook='{{ gather_statistics(this) }}') }}

with

roster as (
    select * from {{ ref('int_roster') }}
),

-- As they are called in the latest time for which the source names them.
ranked_reps as (
    select
        source_system,
        project_id,
        rep_id,
        rep_name,
        row_number() over (
            partition by source_system, project_id, rep_id
            order by case when rep_name = rep_id then 1 else 0 end, active_from desc
        ) as place
    from roster
),

final as (
    select
        source_system,
        project_id,
        cast('rep' as {{ type_label() }}) as subject_type,
        rep_id as subject_id,
        rep_name as subject_name
    from ranked_reps
    where place = 1
)

select * from final
