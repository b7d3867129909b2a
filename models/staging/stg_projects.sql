with

projects as (
    select * from {{ ref('base_settings__projects') }}
),

-- What ships with the product counts only once it has been asked for.
shipped as (
    select
        cast('sample' as {{ type_label() }}) as source_system,
        cast('sample' as {{ type_label() }}) as project_id,
        cast('Sample data' as {{ type_label() }}) as project_name
    union all
    select
        cast('demo' as {{ type_label() }}) as source_system,
        cast('demo' as {{ type_label() }}) as project_id,
        cast('Demo source' as {{ type_label() }}) as project_name
),

shipped_not_asked_for as (
    select
        shipped.source_system,
        shipped.project_id,
        shipped.project_name
    from shipped
    left join projects
        on
            shipped.source_system = projects.source_system
            and shipped.project_id = projects.project_id
    where projects.project_id is null
),

final as (
    select
        source_system,
        project_id,
        project_name,
        timezone,
        currency,
        is_active
    from projects
    union all
    select
        source_system,
        project_id,
        project_name,
        'UTC' as timezone,
        'XXX' as currency,
        false as is_active
    from shipped_not_asked_for
)

select * from final
