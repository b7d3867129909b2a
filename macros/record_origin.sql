{% macro record_origin(source_file, source_line) -%}
    {{ dbt.concat([
        "coalesce(" ~ source_file ~ ", 'unknown file')",
        "' line '",
        "coalesce(cast(" ~ source_line ~ " as " ~ type_label() ~ "), '?')",
    ]) }}
{%- endmacro %}
