{% test retention_starts_full_and_never_rises(model) %}
with

followed as (
    select
        cohort_month,
        months_since,
        retention_rate_pct,
        lag(retention_rate_pct, 1, 100.00) over (
            partition by cohort_month order by months_since
        ) as retention_rate_before_pct
    from {{ model }}
)

select *
from followed
where
    retention_rate_pct > retention_rate_before_pct
    or (months_since = 0 and retention_rate_pct != 100)
{% endtest %}
