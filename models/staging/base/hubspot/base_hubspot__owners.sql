with

source as (
    select * from {{ source('raw_hubspot', 'owners') }}
),

named as (
    select
        source.*,
        trim(
            {{ dbt.concat(["coalesce(first_name, '')", "' '", "coalesce(last_name, '')"]) }}
        ) as full_name
    from source
),

final as (
    select
        cast('hubspot' as {{ type_label() }}) as source_system,
        project_id,
        owner_id,
        -- A queue, or somebody who has no name there, goes by the address.
        case
            when full_name = '' then email
            else full_name
        end as owner_name,
        not coalesce(is_archived, false) as is_active,
        {{ dbt.concat(["'owner '", 'owner_id']) }} as record_origin
    from named
)

select * from final
