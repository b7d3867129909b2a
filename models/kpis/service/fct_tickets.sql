with

tickets as (
    select * from {{ ref('stg_tickets') }}
),

targets as (
    select * from {{ ref('ticket_sla_targets') }}
),

-- Only what had happened by then is known as of an instant.
known as (
    select
        tickets.*,
        targets.first_response_target_seconds,
        targets.resolution_target_seconds,
        -- Who resolves a ticket has answered it.
        case
            when coalesce(tickets.first_response_at, tickets.first_resolved_at) <= {{ as_of() }}
                then coalesce(tickets.first_response_at, tickets.first_resolved_at)
        end as known_response_at,
        case when tickets.first_resolved_at <= {{ as_of() }} then tickets.first_resolved_at end
            as known_resolution_at,
        case when tickets.last_resolved_at <= {{ as_of() }} then tickets.last_resolved_at end
            as known_last_resolution_at,
        case when tickets.waiting_since <= {{ as_of() }} then tickets.waiting_since end
            as known_waiting_since,
        -- Resolved, but not said when for the first time: neither open nor judged.
        tickets.status in ('resolved', 'closed')
        and tickets.first_resolved_at is null
        and coalesce(tickets.last_resolved_at, tickets.created_at) <= {{ as_of() }}
            as only_says_resolved
    from tickets
    inner join targets on tickets.priority = targets.priority
),

-- The clock stops at the answer, or where the ticket began to wait; ended waits are taken off.
clocks as (
    select
        known.*,
        {{ seconds_between('created_at', 'known_response_at') }} as raw_response_seconds,
        {{ seconds_between('created_at', 'known_resolution_at') }} - waiting_seconds
            as raw_resolution_seconds,
        {{ seconds_between(
            'created_at', 'coalesce(known_waiting_since, ' ~ as_of() ~ ')'
        ) }} - waiting_seconds as running_seconds
    from known
),

-- met, breached, or pending: not answered, with the target still ahead.
judged as (
    select
        clocks.*,
        case
            when only_says_resolved and first_response_at is null then 'unknown'
            when {{ is_implausible('created_at') }} or raw_response_seconds < 0 then 'impossible'
            when raw_response_seconds <= first_response_target_seconds then 'met'
            when raw_response_seconds > first_response_target_seconds then 'breached'
            when running_seconds > first_response_target_seconds then 'breached'
            else 'pending'
        end as first_response_result,
        case
            when only_says_resolved then 'unknown'
            when {{ is_implausible('created_at') }} or raw_resolution_seconds < 0 then 'impossible'
            when raw_resolution_seconds <= resolution_target_seconds then 'met'
            when raw_resolution_seconds > resolution_target_seconds then 'breached'
            when running_seconds > resolution_target_seconds then 'breached'
            else 'pending'
        end as resolution_result
    from clocks
),

final as (
    select
        ticket_key,
        source_system,
        project_id,
        ticket_id,
        facility_id,
        agent_id,
        priority,
        status,
        first_response_result,
        resolution_result,
        case
            when is_deleted then 'deleted'
            when created_at > {{ as_of() }} then 'created after as_of'
        end as excluded_reason,
        record_origin,
        {{ flag('known_resolution_at is null and not only_says_resolved') }} as is_open,
        {{ flag("first_response_result in ('met', 'breached')") }} as first_response_judged,
        {{ flag("first_response_result = 'met'") }} as first_response_met,
        {{ flag("resolution_result in ('met', 'breached')") }} as resolution_judged,
        {{ flag("resolution_result = 'met'") }} as resolution_met,
        {{ flag(
            "first_response_result in ('met', 'breached')"
            ~ " or resolution_result in ('met', 'breached')"
        ) }} as ticket_judged,
        {{ flag(
            "'met' in (first_response_result, resolution_result)"
            ~ " and 'breached' not in (first_response_result, resolution_result)"
        ) }} as ticket_met,
        {{ flag("'impossible' in (first_response_result, resolution_result)") }}
            as has_impossible_duration,
        first_response_target_seconds,
        resolution_target_seconds,
        waiting_seconds,
        case when first_response_result != 'impossible' then raw_response_seconds end
            as first_response_seconds,
        case when resolution_result != 'impossible' then raw_resolution_seconds end
            as resolution_seconds,
        created_month as month,
        created_at,
        known_response_at as first_response_at,
        known_resolution_at as first_resolved_at,
        known_last_resolution_at as last_resolved_at,
        {{ built_at() }} as updated_at
    from judged
)

select * from final
