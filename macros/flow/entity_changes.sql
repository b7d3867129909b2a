{#- For a from clause: which transaction wrote something of which deal or order. No CTE: PostgreSQL would
    read the whole log for each that is used twice, to look for a few. -#}
{% macro entity_changes() -%}
    (
        {%- for source in ['receiver', 'pipedrive', 'hubspot', 'salesforce', 'keycrm', 'files'] %}
        select * from {{ ref('base_' ~ source ~ '__entity_changes') }}
        {%- if not loop.last %}
        union all
        {%- endif %}
        {%- endfor %}
    )
{%- endmacro %}
