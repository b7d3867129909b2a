with

invoices as (
    select * from {{ ref('stg_invoices') }}
),

-- Only what had happened by then is known as of an instant.
known as (
    select
        invoices.*,
        case when paid_at <= {{ as_of() }} then paid_at end as known_paid_at,
        {{ flag("status = 'paid' and coalesce(paid_at, issued_at) <= " ~ as_of()) }} as is_paid
    from invoices
),

measured as (
    select
        known.*,
        case when is_paid = 1 then {{ seconds_between('issued_at', 'known_paid_at') }} end
            as raw_payment_seconds
    from known
),

judged as (
    select
        measured.*,
        raw_payment_seconds < 0
        or (raw_payment_seconds is not null and {{ is_implausible('issued_at') }})
            as is_impossible
    from measured
),

final as (
    select
        invoice_key,
        source_system,
        project_id,
        invoice_id,
        opportunity_key,
        facility_id,
        currency,
        case
            when is_deleted then 'deleted'
            when status in ('draft', 'void') then status
            when issued_at > {{ as_of() }} then 'issued after as_of'
        end as excluded_reason,
        record_origin,
        is_paid,
        {{ flag('is_paid = 0 and due_at < ' ~ as_of()) }} as is_overdue,
        {{ flag('is_impossible') }} as has_impossible_duration,
        amount,
        case when amount > 0 then amount else 0 end as collectable_amount,
        case when amount > 0 then amount * is_paid else 0 end as collected_amount,
        case when not is_impossible then raw_payment_seconds end as payment_seconds,
        issued_month as month,
        issued_at,
        due_at,
        known_paid_at as paid_at,
        {{ built_at() }} as updated_at
    from judged
)

select * from final
