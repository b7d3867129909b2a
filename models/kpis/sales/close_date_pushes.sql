with

versions as (
    select * from {{ ref('int_opportunity_versions') }}
    where
        valid_from <= {{ as_of() }}
        and (deleted_at is null or deleted_at > {{ as_of() }})
),

projects as (
    select * from {{ ref('stg_projects') }}
),

compared as (
    select
        versions.*,
        lag(expected_close_date) over (
            partition by opportunity_key
            order by version_number
        ) as previous_close_date
    from versions
),

final as (
    select
        compared.opportunity_key,
        cast(row_number() over (
            partition by compared.opportunity_key
            order by compared.version_number
        ) as integer) as push_number,
        compared.source_system,
        compared.project_id,
        compared.opportunity_id,
        compared.rep_id,
        compared.currency,
        {{ local_month('compared.valid_from', "coalesce(projects.timezone, 'UTC')") }} as month,
        compared.previous_close_date,
        compared.expected_close_date,
        {{ dbt.datediff('compared.previous_close_date', 'compared.expected_close_date', 'day') }}
            as days_pushed,
        compared.amount,
        compared.valid_from as pushed_at,
        {{ built_at() }} as updated_at
    from compared
    left join projects
        on
            compared.source_system = projects.source_system
            and compared.project_id = projects.project_id
    where
        compared.status = 'open'
        and compared.expected_close_date > compared.previous_close_date
)

select * from final
