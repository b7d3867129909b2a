{% test funnel_never_rises(model) %}
select
    facility_id,
    rep_id,
    month,
    funnel_stage,
    stage_count,
    previous_stage_count
from {{ model }}
where stage_count > coalesce(previous_stage_count, lead_count)
{% endtest %}
