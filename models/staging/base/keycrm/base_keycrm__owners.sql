with

source as (
    select * from {{ source('raw_keycrm', 'users') }}
),

final as (
    select
        cast('keycrm' as {{ type_label() }}) as source_system,
        project_id,
        user_id as owner_id,
        full_name as owner_name,
        coalesce(status, 'active') = 'active' as is_active,
        {{ dbt.concat(["'user '", 'user_id']) }} as record_origin
    from source
)

select * from final
