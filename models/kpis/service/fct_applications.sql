with

applications as (
    select * from {{ ref('stg_applications') }}
),

-- Only what had happened by then is known as of an instant.
known as (
    select
        applications.*,
        case when decided_at <= {{ as_of() }} then decided_at end as known_decided_at
    from applications
),

measured as (
    select
        known.*,
        {{ seconds_between('submitted_at', 'known_decided_at') }} as raw_review_seconds,
        -- A finding without the instant of its decision counts from the submission on.
        {{ flag(
            'is_compliant is not null and coalesce(decided_at, submitted_at) <= ' ~ as_of()
        ) }} as is_reviewed
    from known
),

judged as (
    select
        measured.*,
        raw_review_seconds < 0
        or (raw_review_seconds is not null and {{ is_implausible('submitted_at') }})
            as is_impossible
    from measured
),

final as (
    select
        application_key,
        source_system,
        project_id,
        application_id,
        facility_id,
        status,
        case
            when is_deleted then 'deleted'
            when status = 'withdrawn' then 'withdrawn'
            when submitted_at > {{ as_of() }} then 'submitted after as_of'
        end as excluded_reason,
        record_origin,
        is_reviewed,
        {{ flag('is_reviewed = 1 and is_compliant') }} as is_compliant,
        -- Decided, but not said when: nobody knows whether in time.
        {{ flag(
            '(due_at is not null and known_decided_at is not null) or (due_at < ' ~ as_of()
            ~ " and not (status in ('approved', 'rejected') and decided_at is null))"
        ) }} as timeliness_judged,
        {{ flag('known_decided_at <= due_at') }} as is_on_time,
        {{ flag('is_impossible') }} as has_impossible_duration,
        case when not is_impossible then raw_review_seconds end as review_seconds,
        submitted_month as month,
        submitted_at,
        due_at,
        known_decided_at as decided_at,
        {{ built_at() }} as updated_at
    from judged
)

select * from final
