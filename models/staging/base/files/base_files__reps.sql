with

source as (
    select * from {{ source('raw_files', 'reps') }}
),

final as (
    select
        source_system,
        project_id,
        rep_id,
        name,
        team_id,
        active_from,
        active_to,
        is_deleted,
        {{ record_origin('source_file', 'source_line') }} as record_origin
    from source
)

select * from final
