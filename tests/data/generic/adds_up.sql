{% test adds_up(model, parts, total) %}
    select
        {{ parts | join(' + ') }} as sum_of_parts,
        {{ total }}
    from {{ model }}
    where {{ parts | join(' + ') }} is distinct from {{ total }}
{% endtest %}
