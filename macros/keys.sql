{% macro entity_key(entity_id) -%}
    {{ dbt.concat([
        'records.source_system', "'|'", 'records.project_id', "'|'", 'records.' ~ entity_id,
    ]) }}
{%- endmacro %}
