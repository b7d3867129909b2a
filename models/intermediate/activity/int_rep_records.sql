{{ config(materialized='table') }}

with

call_hours as (
    select * from {{ ref('int_call_hours') }}
),

items as (
    select * from {{ ref('stg_pipeline_items') }}
    where not is_deleted and created_at <= {{ as_of() }}
),

sales as (
    select * from {{ ref('stg_sales') }}
    where not is_deleted and sold_at <= {{ as_of() }}
),

{%- set steps = [
    'call_conducted_at', 'proposal_at', 'agreement_at', 'partner_list_sent_at', 'first_sale_at',
] %}

-- Which the source may have dated before it wrote the item down.
instants_of_items as (
    select
        source_system,
        project_id,
        rep_id,
        timezone,
        least(
            {%- for step in steps %}
            case when not {{ is_implausible(step) }} then {{ step }} end,
            {%- endfor %}
            created_at
        ) as first_at,
        greatest(
            {%- for step in steps %}
            case when {{ step }} <= {{ as_of() }} then {{ step }} end,
            {%- endfor %}
            created_at
        ) as last_at
    from items
),

records as (
    select
        source_system,
        project_id,
        rep_id,
        min(call_date) as first_date,
        max(call_date) as last_date
    from call_hours
    where due > 0 or conducted > 0
    group by
        source_system,
        project_id,
        rep_id
    union all
    select
        source_system,
        project_id,
        rep_id,
        {{ date_of_day('min(' ~ local_day('first_at', 'timezone') ~ ')') }} as first_date,
        {{ date_of_day('max(' ~ local_day('last_at', 'timezone') ~ ')') }} as last_date
    from instants_of_items
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
        -- No time begins before the days of the calendar.
        greatest(min(first_date), cast('2000-01-01' as date)) as first_date,
        max(last_date) as last_date
    from records
    group by
        source_system,
        project_id,
        rep_id
)

select * from final
