{{ config(
    materialized=flow_materialized(),
    incremental_strategy='by_call_day',
    on_schema_change='append_new_columns',
    pre_hook='{{ begin_call_hours() }}',
    post_hook=['{{ gather_statistics(this) }}', '{{ remember_call_hours() }}'],
    indexes=[{'columns': ['source_system', 'project_id', 'call_date']}],
) }}

with

calls as (
    -- Of a reason that is null PostgreSQL expects next to none, and sorts what it could hash.
    select * from {{ ref('int_calls') }}
    where is_counted {{ and_call_day_is_to_build() }}
),

final as (
    select
        source_system,
        project_id,
        rep_id,
        call_date,
        call_hour,
        -- Sums of wider numbers would be exact decimals, which cost several times as much to add.
        cast(sum(is_booked) as integer) as booked,
        cast(sum(is_due) as integer) as due,
        cast(sum(is_held) as integer) as held,
        cast(sum(is_conducted) as integer) as conducted
    from calls
    -- Sorted in this order: the more a key tells apart, and the cheaper it compares, the earlier.
    group by
        call_date,
        call_hour,
        rep_id,
        project_id,
        source_system
)

select * from final
