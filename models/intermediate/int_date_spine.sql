{{ config(materialized='table') }}

with

-- As many days as there are from 2000-01-01 to 2049-12-31.
days as (
    {{ whole_numbers(18262) }}
),

final as (
    select cast({{ dbt.dateadd('day', 'n', "cast('2000-01-01' as date)") }} as date) as date_day
    from days
)

select * from final
