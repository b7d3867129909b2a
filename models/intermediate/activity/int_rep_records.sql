{{ config(materialized='table', post_hook='{{ gather_statistics(this) }}') }}

with

call_hours as (
    select * from {{ ref('int_call_hours') }}
),

items as (
    select * from {{ ref('int_pipeline_items') }}
    where excluded_reason is null and created_at is not null
),

sales as (
    select * from {{ ref('stg_sales') }}
    where not is_deleted and sold_at <= {{ as_of() }}
),

{%- set steps = ['created', 'call', 'proposal', 'agreement', 'list_out', 'first_sale'] %}

-- Which the source may have dated before it wrote the item down. One date that cannot be, as of
-- 1948, does not make a rep active for all the years since.
told_items as (
    select
        {%- for step in steps %}
        case
            when not {{ is_implausible(step ~ '_at') }}
                then {{ step }}_date
        end as {{ step }}_date,
        {%- endfor %}
        source_system,
        project_id,
        rep_id
    from items
),

told_calls as (
    select
        source_system,
        project_id,
        rep_id,
        case
            when (due > 0 or conducted > 0) and call_date >= cast('2000-01-01' as date)
                then call_date
        end as call_date
    from call_hours
),

records as (
    select
        source_system,
        project_id,
        rep_id,
        min(call_date) as first_date,
        max(call_date) as last_date
    from told_calls
    group by
        source_system,
        project_id,
        rep_id
    union all
    select
        source_system,
        project_id,
        rep_id,
        min(least({{ steps | join('_date, ') }}_date)) as first_date,
        max(greatest({{ steps | join('_date, ') }}_date)) as last_date
    from told_items
    group by
        source_system,
        project_id,
        rep_id
    union all
    select
        source_system,
        project_id,
        rep_id,
        {{ date_of_day('min(' ~ local_day('sold_at', 'timezone') ~ ')') }} as first_date,
        {{ date_of_day('max(' ~ local_day('sold_at', 'timezone') ~ ')') }} as last_date
    from sales
    where not {{ is_implausible('sold_at') }}
    group by
        source_system,
        project_id,
        rep_id
),

final as (
    select
        source_system,
        project_id,
        rep_id,
        min(first_date) as first_date,
        max(last_date) as last_date
    from records
    group by
        source_system,
        project_id,
        rep_id
)

select * from final
