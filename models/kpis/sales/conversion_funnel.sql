with

leads as (
    select * from {{ ref('fct_leads') }}
    where excluded_reason is null
),

stages as (
    select * from {{ ref('stage_weights') }}
),

counted as (
    select
        leads.facility_id,
        leads.rep_id,
        leads.month,
        stages.stage as funnel_stage,
        stages.stage_order as funnel_order,
        count(*) as lead_count,
        sum({{ flag('leads.stages_reached >= stages.stage_order - 1') }}) as previous_stage_count,
        sum({{ flag('leads.stages_reached >= stages.stage_order') }}) as stage_count
    from leads
    cross join stages
    group by
        leads.facility_id,
        leads.rep_id,
        leads.month,
        stages.stage,
        stages.stage_order
),

final as (
    select
        facility_id,
        rep_id,
        month,
        funnel_stage,
        funnel_order,
        lead_count,
        case when funnel_order > 1 then previous_stage_count end as previous_stage_count,
        stage_count,
        case when funnel_order > 1 then {{ pct('stage_count', 'previous_stage_count') }} end
            as conversion_rate_pct,
        {{ pct('stage_count', 'lead_count') }} as overall_rate_pct,
        {{ built_at() }} as updated_at
    from counted
)

select * from final
