with

records as (
    {{ records_of_active_projects([
        ref('base_receiver__value_changes'),
        ref('base_hubspot__value_changes'),
        ref('base_pipedrive__value_changes'),
        ref('base_salesforce__value_changes'),
        ref('base_keycrm__value_changes'),
    ]) }}
),

-- A number is one value, however many zeros it is written with.
plain as (
    select
        source_system,
        project_id,
        entity_type,
        entity_id,
        field,
        case
            when field in ('amount', 'probability')
                then coalesce({{ plain_number(number_of('old_value')) }}, old_value)
            when field = 'currency' then upper(old_value)
            else old_value
        end as old_value,
        case
            when field in ('amount', 'probability')
                then coalesce({{ plain_number(number_of('new_value')) }}, new_value)
            when field = 'currency' then upper(new_value)
            else new_value
        end as new_value,
        -- Pipedrive's history counts whole seconds; its webhooks may have fractions of them.
        case
            when source_system = 'pipedrive' then {{ dbt.date_trunc('second', 'changed_at') }}
            else changed_at
        end as changed_at,
        ingested_at,
        record_origin
    from records
),

-- What several tell of is one change: what a webhook said at the time counts before the rest.
ranked as (
    select
        plain.*,
        row_number() over (
            partition by
                source_system, project_id, entity_type, entity_id, field, changed_at, new_value
            order by
                case when old_value is null then 2 else 1 end,
                ingested_at,
                record_origin
        ) as place
    from plain
),

final as (
    select
        source_system,
        project_id,
        entity_type,
        entity_id,
        field,
        old_value,
        new_value,
        changed_at,
        ingested_at,
        record_origin
    from ranked
    where place = 1
)

select * from final
