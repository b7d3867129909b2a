-- The numbers that the sample data must give, while it counts (docs/kpis.md has the table).
with

sample_counts as (
    select count(*) as active_projects
    from {{ ref('stg_projects') }}
    where source_system = 'sample' and is_active
),

funnel as (
    select
        month,
        funnel_stage,
        sum(stage_count) as stage_count,
        max(sum(stage_count)) over (partition by month) as leads
    from {{ ref('conversion_funnel') }}
    where facility_id like 'sample-%'
    group by
        month,
        funnel_stage
),

health as (
    select
        month,
        avg(sla_health) as sla_compliance_pct,
        avg(overall_health_score) as overall_health
    from {{ ref('health_scores') }}
    where facility_id like 'sample-%'
    group by month
),

tickets as (
    select
        sum(tickets) as tickets,
        sum(open_tickets) as open_tickets,
        {{ pct('sum(tickets_met)', 'sum(tickets_judged)') }} as ticket_compliance_pct
    from {{ ref('ticket_sla_compliance') }}
    where facility_id like 'sample-%'
),

csat as (
    select
        month,
        sum(avg_score * responses) / sum(responses) as mean_csat
    from {{ ref('satisfaction_rollups') }}
    where facility_id like 'sample-%' and survey_type = 'csat'
    group by month
),

responses as (
    select
        survey_type,
        sum(responses) as responses
    from {{ ref('satisfaction_rollups') }}
    where facility_id like 'sample-%'
    group by survey_type
),

lead_value as (
    select sum(amount) as amount
    from {{ ref('fct_leads') }}
    where source_system = 'sample' and excluded_reason is null
),

opportunity_value as (
    select sum(total_value) as amount
    from {{ ref('pipeline_kpis') }}
    where facility_id like 'sample-%'
),

outreach as (
    select
        sum(total_outreach) as total_outreach,
        sum(responses) as responses,
        sum(conversions) as conversions
    from {{ ref('outreach_kpis') }}
    where facility_id like 'sample-%'
),

revenue as (
    select
        sum(invoiced_amount) as invoiced_amount,
        sum(paid_amount) as paid_amount
    from {{ ref('revenue_kpis') }}
    where facility_id like 'sample-%'
),

applications as (
    select
        sum(reviewed_applications) as reviewed_applications,
        sum(compliant_applications) as compliant_applications,
        sum(on_time_applications) as on_time_applications
    from {{ ref('compliance_kpis') }}
    where facility_id like 'sample-%'
),

weighted_pipeline as (
    select
        scenario,
        sum(weighted_pipeline_value) as weighted_pipeline_value
    from {{ ref('weighted_pipeline_scenarios') }}
    where facility_id like 'sample-%'
    group by scenario
),

measured as (
    select
        cast(month as {{ type_label() }}) || ' ' || funnel_stage || ' leads' as number_name,
        stage_count as measured
    from funnel
    union all
    select
        cast(month as {{ type_label() }}) || ' ' || funnel_stage || ' % of leads' as number_name,
        {{ pct('stage_count', 'leads') }} as measured
    from funnel
    union all
    select
        cast(month as {{ type_label() }}) || ' SLA compliance %' as number_name,
        round(sla_compliance_pct, 2) as measured
    from health
    union all
    select
        cast(month as {{ type_label() }}) || ' overall health' as number_name,
        round(overall_health, 2) as measured
    from health
    union all
    select
        cast(month as {{ type_label() }}) || ' mean CSAT' as number_name,
        round(mean_csat, 2) as measured
    from csat
    union all
    select
        'tickets' as number_name,
        tickets as measured
    from tickets
    union all
    select
        'open tickets' as number_name,
        open_tickets as measured
    from tickets
    union all
    select
        'ticket compliance %' as number_name,
        ticket_compliance_pct as measured
    from tickets
    union all
    select
        survey_type || ' responses' as number_name,
        responses as measured
    from responses
    union all
    select
        'lead value' as number_name,
        amount as measured
    from lead_value
    union all
    select
        'opportunity value' as number_name,
        amount as measured
    from opportunity_value
    union all
    select
        'outreach' as number_name,
        total_outreach as measured
    from outreach
    union all
    select
        'responses' as number_name,
        responses as measured
    from outreach
    union all
    select
        'conversions' as number_name,
        conversions as measured
    from outreach
    union all
    select
        'invoiced amount' as number_name,
        invoiced_amount as measured
    from revenue
    union all
    select
        'paid amount' as number_name,
        paid_amount as measured
    from revenue
    union all
    select
        'reviewed applications' as number_name,
        reviewed_applications as measured
    from applications
    union all
    select
        'compliant applications' as number_name,
        compliant_applications as measured
    from applications
    union all
    select
        'on-time applications' as number_name,
        on_time_applications as measured
    from applications
    union all
    select
        scenario || ' pipeline' as number_name,
        weighted_pipeline_value as measured
    from weighted_pipeline
),

expected as (
    {%- for name, number, tolerance in [
        ('2024-01-01 lead leads', 8, 0),
        ('2024-02-01 lead leads', 4, 0),
        ('2024-01-01 sql leads', 4, 0),
        ('2024-02-01 sql leads', 3, 0),
        ('2024-01-01 sql % of leads', 50, 0),
        ('2024-02-01 sql % of leads', 75, 0),
        ('2024-01-01 won leads', 3, 0),
        ('2024-02-01 won leads', 1, 0),
        ('2024-01-01 won % of leads', 37.5, 0),
        ('2024-02-01 won % of leads', 25, 0),
        ('2024-01-01 SLA compliance %', 95, 0),
        ('2024-02-01 SLA compliance %', 100, 0),
        ('2024-01-01 mean CSAT', 4.0, 0),
        ('2024-02-01 mean CSAT', 4.5, 0),
        ('2024-01-01 overall health', 73, 0.5),
        ('2024-02-01 overall health', 78, 0.5),
        ('tickets', 10, 0),
        ('open tickets', 3, 0),
        ('ticket compliance %', 90, 0),
        ('csat responses', 5, 0),
        ('nps responses', 5, 0),
        ('lead value', 765000, 0),
        ('opportunity value', 490000, 0),
        ('outreach', 16, 0),
        ('responses', 10, 0),
        ('conversions', 7, 0),
        ('invoiced amount', 210000, 0),
        ('paid amount', 120000, 0),
        ('reviewed applications', 18, 0),
        ('compliant applications', 15, 0),
        ('on-time applications', 16, 0),
        ('unweighted pipeline', 720000, 0),
        ('probability pipeline', 424000, 0),
        ('weighted pipeline', 322450, 0),
        ('commit pipeline', 250000, 0),
        ('best_case pipeline', 490000, 0),
    ] %}
    select
        '{{ name }}' as number_name,
        {{ number }} as expected,
        {{ tolerance }} as tolerance
    {{ 'union all' if not loop.last }}
    {%- endfor %}
)

select
    expected.number_name,
    expected.expected,
    measured.measured
from expected
cross join sample_counts
left join measured on expected.number_name = measured.number_name
where
    sample_counts.active_projects > 0
    and (
        measured.measured is null
        or abs(measured.measured - expected.expected) > expected.tolerance
    )
