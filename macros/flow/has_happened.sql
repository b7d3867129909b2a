{#- By the instant that the run is for. An impossible instant is no reason to wait for it. -#}
{% macro has_happened(instant) -%}
    ({{ instant }} <= {{ as_of() }} or {{ is_implausible(instant) }})
{%- endmacro %}
