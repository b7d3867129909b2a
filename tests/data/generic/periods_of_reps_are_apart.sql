{# No rep is in two teams on one day; where that is so, the period that began last counts. #}
{% test periods_of_reps_are_apart(model) %}
select
    earlier.rep_key,
    earlier.active_from,
    earlier.active_to,
    later.active_from as next_active_from
from {{ model }} as earlier
inner join {{ model }} as later
    on
        earlier.rep_key = later.rep_key
        and earlier.active_from < later.active_from
        and (earlier.active_to is null or earlier.active_to >= later.active_from)
where not earlier.is_deleted and not later.is_deleted
{% endtest %}
