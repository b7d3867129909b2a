{% macro entity_key(entity_id, record='records') -%}
    {{ dbt.concat([
        record ~ '.source_system', "'|'", record ~ '.project_id', "'|'", record ~ '.' ~ entity_id,
    ]) }}
{%- endmacro %}
