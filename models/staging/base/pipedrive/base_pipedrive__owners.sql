with

source as (
    select * from {{ source('raw_pipedrive', 'users') }}
),

final as (
    select
        cast('pipedrive' as {{ type_label() }}) as source_system,
        project_id,
        user_id as owner_id,
        name as owner_name,
        coalesce(is_active, true) as is_active,
        {{ dbt.concat(["'user '", 'user_id']) }} as record_origin
    from source
)

select * from final
