with

source as (
    select * from {{ source('raw_files', 'sublists') }}
),

final as (
    select
        source_system,
        project_id,
        sublist_id,
        item_id,
        name,
        created_at,
        is_deleted,
        {{ record_origin('source_file', 'source_line') }} as record_origin
    from source
)

select * from final
