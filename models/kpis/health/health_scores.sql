{%- set components = ['compliance', 'pipeline', 'conversion', 'sla', 'satisfaction'] -%}

with

scored as (
    select * from {{ ref('fct_health_components') }}
    where excluded_reason is null
),

thresholds as (
    select * from {{ ref('health_thresholds') }}
),

summed as (
    select
        facility_id,
        month,
        {%- for component in components %}
        max(score) filter (where component = '{{ component }}') as {{ component }},
        {%- endfor %}
        count(*) as components_used,
        {{ ratio('sum(score * weight)', 'sum(weight)') }} as overall_health_score
    from scored
    group by
        facility_id,
        month
),

reached as (
    select
        summed.facility_id,
        summed.month,
        max(thresholds.min_score) as min_score
    from summed
    inner join thresholds on summed.overall_health_score >= thresholds.min_score
    group by
        summed.facility_id,
        summed.month
),

final as (
    select
        summed.facility_id,
        summed.month,
        thresholds.health_status,
        summed.components_used,
        summed.compliance as compliance_score,
        summed.pipeline as pipeline_health,
        summed.conversion as conversion_health,
        summed.sla as sla_health,
        summed.satisfaction as satisfaction_health,
        summed.overall_health_score,
        {{ built_at() }} as updated_at
    from summed
    left join reached
        on
            summed.facility_id = reached.facility_id
            and summed.month = reached.month
    left join thresholds on reached.min_score = thresholds.min_score
)

select * from final
