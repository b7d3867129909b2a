with

changes as (
    select * from {{ ref('base_keycrm__order_changes') }}
    where field = 'stage'
),

orders as (
    select * from {{ ref('base_keycrm__orders') }}
),

told_events as (
    select * from {{ ref('base_receiver__stage_events') }}
    where source_system = 'keycrm' and entity_type = 'order'
),

sequenced_changes as (
    select
        changes.*,
        lag(changed_at) over (
            partition by source_system, project_id, order_id
            order by change_id
        ) as previous_changed_at,
        row_number() over (
            partition by source_system, project_id, order_id, new_value, changed_at
            order by change_id desc
        ) as place
    from changes
),

-- A webhook may have told of an entry that was found without its instant. One that has its instant
-- is the same entry where both are equal.
untold_changes as (
    select *
    from sequenced_changes
    where
        place = 1
        and new_value is not null
        and (
            is_dated
            or not exists (
                select 1
                from told_events
                where
                    sequenced_changes.project_id = told_events.project_id
                    and sequenced_changes.order_id = told_events.entity_id
                    and sequenced_changes.new_value = told_events.stage_id
                    and sequenced_changes.fetched_at >= told_events.entered_at
                    and (
                        sequenced_changes.previous_changed_at is null
                        or sequenced_changes.previous_changed_at <= told_events.entered_at
                    )
            )
        )
),

final as (
    select
        untold_changes.source_system,
        untold_changes.project_id,
        cast('order' as {{ type_label() }}) as entity_type,
        untold_changes.order_id as entity_id,
        cast(null as {{ type_label() }}) as pipeline_id,
        untold_changes.new_value as stage_id,
        untold_changes.stage_group_id,
        cast(null as {{ type_label() }}) as previous_stage_id,
        cast(null as {{ type_label() }}) as delivery_id,
        untold_changes.change_id as sequence,
        untold_changes.changed_at as entered_at,
        -- An order that moved before it was first seen was elsewhere until then.
        case when not untold_changes.is_dated then orders.created_at end as entity_created_at,
        untold_changes.fetched_at as ingested_at,
        {{ dbt.concat([
            "'order '",
            'untold_changes.order_id',
            "', change '",
            'cast(untold_changes.change_id as ' ~ type_label() ~ ')',
        ]) }} as record_origin
    from untold_changes
    left join orders
        on
            untold_changes.source_system = orders.source_system
            and untold_changes.project_id = orders.project_id
            and untold_changes.order_id = orders.order_id
)

select * from final
