with

source as (
    select * from {{ source('raw', 'value_changes') }}
),

final as (
    select
        source_system,
        project_id,
        entity_type,
        entity_id,
        field,
        -- Pipedrive counts chances in percent.
        case
            when field = 'probability' and source_system = 'pipedrive'
                then {{ plain_number(number_of('old_value') ~ ' / 100') }}
            else old_value
        end as old_value,
        case
            when field = 'probability' and source_system = 'pipedrive'
                then {{ plain_number(number_of('new_value') ~ ' / 100') }}
            else new_value
        end as new_value,
        changed_at,
        ingested_at,
        {{ dbt.concat(["'delivery '", 'cast(delivery_id as ' ~ type_label() ~ ')']) }}
            as record_origin
    from source
    -- A deal whose own chance is taken back has that of its stage, which webhooks do not tell.
    where
        new_value is not null
        or not (field = 'probability' and source_system = 'pipedrive')
)

select * from final
