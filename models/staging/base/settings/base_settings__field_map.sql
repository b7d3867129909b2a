{%- set fields = ['facility_id', 'rep_id', 'lead_id', 'company'] %}

with

source as (
    select * from {{ source('settings', 'field_map') }}
),

final as (
    select
        {%- for field in fields %}
        max(case when field = '{{ field }}' then crm_field end) as {{ field }},
        {%- endfor %}
        source_system,
        project_id,
        entity
    from source
    group by
        source_system,
        project_id,
        entity
)

select * from final
