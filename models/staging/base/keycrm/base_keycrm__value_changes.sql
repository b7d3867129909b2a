with

changes as (
    select * from {{ ref('base_keycrm__order_changes') }}
),

-- An order that is back in its stage has changed no value.
final as (
    select
        source_system,
        project_id,
        cast('order' as {{ type_label() }}) as entity_type,
        order_id as entity_id,
        field,
        old_value,
        new_value,
        changed_at,
        fetched_at as ingested_at,
        {{ dbt.concat([
            "'order '", 'order_id', "', change '", 'cast(change_id as ' ~ type_label() ~ ')'
        ]) }} as record_origin
    from changes
    where old_value is distinct from new_value
)

select * from final
