with

invoices as (
    select * from {{ ref('fct_invoices') }}
    where excluded_reason is null
),

final as (
    select
        facility_id,
        month,
        currency,
        count(*) as invoices,
        sum(is_paid) as paid_invoices,
        sum(is_overdue) as overdue_invoices,
        sum(has_impossible_duration) as impossible_durations,
        sum(amount) as invoiced_amount,
        sum(amount * is_paid) as paid_amount,
        sum(amount * (1 - is_paid)) as outstanding_amount,
        sum(amount * is_overdue) as overdue_amount,
        {{ pct('sum(collected_amount)', 'sum(collectable_amount)') }} as collection_rate_pct,
        {{ pct('sum(is_paid)', 'count(*)') }} as paid_invoices_pct,
        count(payment_seconds) as payment_times,
        {{ mean_seconds('payment_seconds') }} as avg_payment_seconds,
        {{ percentile_seconds(0.5, 'payment_seconds') }} as p50_payment_seconds,
        {{ percentile_seconds(0.85, 'payment_seconds') }} as p85_payment_seconds,
        {{ percentile_seconds(0.95, 'payment_seconds') }} as p95_payment_seconds,
        {{ built_at() }} as updated_at
    from invoices
    group by
        facility_id,
        month,
        currency
)

select * from final
