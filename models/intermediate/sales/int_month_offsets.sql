with

-- Fifty years of months: as far as a cohort is followed.
final as (
    {{ whole_numbers(600) }}
)

select n as months_since from final
