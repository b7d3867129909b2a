-- A major stage begins and ends with sub-stages of its own: others would never be found.
select
    boundaries.major_key,
    substages.sub_key
from {{ ref('canonical_stage_boundaries') }} as boundaries
inner join {{ ref('canonical_substages') }} as substages
    on
        substages.sub_key in (boundaries.entry_sub_key, boundaries.exit_sub_key)
        and boundaries.major_key != substages.major_key
