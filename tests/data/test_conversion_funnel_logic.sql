-- Only the stages of the funnel, each once for every facility, rep and month.
select
    facility_id,
    rep_id,
    month,
    count(*) as stages,
    count(*) filter (where funnel_stage in ('lead', 'sql', 'opportunity', 'won')) as valid_stages
from {{ ref('conversion_funnel') }}
group by
    facility_id,
    rep_id,
    month
having
    count(*) != 4
    or count(*) filter (where funnel_stage in ('lead', 'sql', 'opportunity', 'won')) != 4
