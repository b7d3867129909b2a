with

source as (
    select * from {{ source('raw_demo', 'opportunities') }}
),

final as (
    select
        cast('demo' as {{ type_label() }}) as source_system,
        cast('demo' as {{ type_label() }}) as project_id,
        id as opportunity_id,
        cast(null as {{ type_label() }}) as lead_id,
        cast(null as {{ type_label() }}) as facility_id,
        owner as rep_id,
        name,
        company,
        stage,
        case stage when 'Closed Won' then 'won' when 'Closed Lost' then 'lost' else 'open' end
            as status,
        value as amount,
        cast(null as {{ type_label() }}) as currency,
        probability as win_probability,
        created_at,
        case when stage in ('Closed Won', 'Closed Lost') then updated_at end as closed_at,
        cast(null as date) as expected_close_date,
        updated_at,
        false as is_deleted,
        cast('demo source' as {{ type_label() }}) as record_origin
    from source
)

select * from final
