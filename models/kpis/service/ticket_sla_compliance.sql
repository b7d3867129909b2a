with

tickets as (
    select * from {{ ref('fct_tickets') }}
    where excluded_reason is null
),

summed as (
    select
        facility_id,
        priority,
        month,
        count(*) as tickets,
        sum(is_open) as open_tickets,
        sum(1 - is_open) as resolved_tickets,
        sum(has_impossible_duration) as impossible_durations,
        sum(first_response_judged) as first_responses_judged,
        sum(first_response_met) as first_responses_met,
        sum(resolution_judged) as resolutions_judged,
        sum(resolution_met) as resolutions_met,
        sum(ticket_judged) as tickets_judged,
        sum(ticket_met) as tickets_met,
        count(first_response_seconds) as first_response_times,
        {{ mean_seconds('first_response_seconds') }} as avg_first_response_seconds,
        {{ percentile_seconds(0.5, 'first_response_seconds') }} as p50_first_response_seconds,
        {{ percentile_seconds(0.85, 'first_response_seconds') }} as p85_first_response_seconds,
        {{ percentile_seconds(0.95, 'first_response_seconds') }} as p95_first_response_seconds,
        count(resolution_seconds) as resolution_times,
        {{ mean_seconds('resolution_seconds') }} as avg_resolution_seconds,
        {{ percentile_seconds(0.5, 'resolution_seconds') }} as p50_resolution_seconds,
        {{ percentile_seconds(0.85, 'resolution_seconds') }} as p85_resolution_seconds,
        {{ percentile_seconds(0.95, 'resolution_seconds') }} as p95_resolution_seconds
    from tickets
    group by
        facility_id,
        priority,
        month
),

rated as (
    select
        summed.*,
        {{ pct('first_responses_met', 'first_responses_judged') }} as first_response_sla_pct,
        {{ pct('resolutions_met', 'resolutions_judged') }} as resolution_sla_pct
    from summed
),

final as (
    select
        facility_id,
        priority,
        month,
        tickets,
        open_tickets,
        resolved_tickets,
        impossible_durations,
        first_responses_judged,
        first_responses_met,
        resolutions_judged,
        resolutions_met,
        tickets_judged,
        tickets_met,
        first_response_times,
        avg_first_response_seconds,
        p50_first_response_seconds,
        p85_first_response_seconds,
        p95_first_response_seconds,
        {{ ratio('avg_first_response_seconds', '3600') }} as avg_first_response_hours,
        {{ ratio('p50_first_response_seconds', '3600') }} as median_first_response_hours,
        resolution_times,
        avg_resolution_seconds,
        p50_resolution_seconds,
        p85_resolution_seconds,
        p95_resolution_seconds,
        {{ ratio('avg_resolution_seconds', '3600') }} as avg_resolution_hours,
        {{ ratio('p50_resolution_seconds', '3600') }} as median_resolution_hours,
        first_response_sla_pct,
        resolution_sla_pct,
        {{ mean_of_present('first_response_sla_pct', 'resolution_sla_pct') }}
            as sla_compliance_rate_pct,
        {{ pct('tickets_met', 'tickets_judged') }} as ticket_compliance_pct,
        {{ built_at() }} as updated_at
    from rated
)

select * from final
