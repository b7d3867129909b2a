{% macro query_comment(node) -%}
    {%- set comment = {
        'app': 'stageline',
        'target': target.name,
        'invocation_id': invocation_id,
        'node': node.unique_id if node else none,
    } -%}
    {{ tojson(comment) }}
{%- endmacro %}
