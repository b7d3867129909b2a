-- Every rate is a percentage, and the compliance rate lies between the two that it is the mean of.
select
    facility_id,
    priority,
    month,
    first_response_sla_pct,
    resolution_sla_pct,
    sla_compliance_rate_pct
from {{ ref('ticket_sla_compliance') }}
where
    not coalesce(first_response_sla_pct between 0 and 100, true)
    or not coalesce(resolution_sla_pct between 0 and 100, true)
    or not coalesce(ticket_compliance_pct between 0 and 100, true)
    or sla_compliance_rate_pct < least(first_response_sla_pct, resolution_sla_pct)
    or sla_compliance_rate_pct > greatest(first_response_sla_pct, resolution_sla_pct)
