{{ config(materialized='table', post_hook='{{ gather_statistics(this) }}') }}

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

{%- set instants = [
    'created_at', 'call_conducted_at', 'proposal_at', 'agreement_at', 'partner_list_sent_at',
    'first_sale_at',
] %}

-- Which the source may have dated before it wrote the item down. One date that cannot be, as of
-- 1948, does not make a rep active for all the years since.
told_items as (
    select
        {%- for instant in instants %}
        case
            when {{ instant }} <= {{ as_of() }} and not {{ is_implausible(instant) }}
                then {{ instant }}
        end as {{ instant }},
        {%- endfor %}
        source_system,
        project_id,
        rep_id,
        timezone
    from items
),

instants_of_items as (
    select
        source_system,
        project_id,
        rep_id,
        timezone,
        least({{ instants | join(', ') }}) as first_at,
        greatest({{ instants | join(', ') }}) as last_at
    from told_items
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
