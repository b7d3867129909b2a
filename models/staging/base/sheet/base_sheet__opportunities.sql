with

source as (
    select * from {{ source('raw_sheet', 'opportunities') }}
),

-- What lacks one of these is kept in the table that this reads; the load says so.
final as (
    select
        cast('sheet' as {{ type_label() }}) as source_system,
        project_id,
        opportunity_id,
        lead_id,
        facility_id,
        rep_id,
        name,
        company,
        stage,
        status,
        amount,
        currency,
        win_probability,
        created_at,
        closed_at,
        expected_close_date,
        updated_at,
        coalesce(is_deleted, false) or is_gone as is_deleted,
        {{ dbt.concat(["'sheet row '", 'opportunity_id']) }} as record_origin
    from source
    where status is not null and created_at is not null
)

select * from final
