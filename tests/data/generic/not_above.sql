{% test not_above(model, smaller, larger) %}
select
    {{ smaller }},
    {{ larger }}
from {{ model }}
where {{ smaller }} > {{ larger }} and {{ larger }} >= 0
{% endtest %}
