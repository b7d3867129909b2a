{{ config(materialized='view') }}

{%- set steps = ['call', 'proposal', 'agreement', 'list_due', 'list_out', 'first_sale'] %}
{%- set durations = {'agreement': 'proposal_to_agreement', 'list_out': 'agreement_to_list'} %}

with

roster as (
    select * from {{ ref('int_roster') }}
),

{%- set copied = [
    'item_key', 'source_system', 'project_id', 'item_id', 'facility_id', 'rep_id',
    'excluded_reason', 'record_origin',
] %}

-- A query that several read PostgreSQL would write to a file first, whole.
placed as (
    {%- for step in steps %}
    select
        {%- for column in copied %}
        {{ column }},
        {%- endfor %}
        cast('{{ step }}' as {{ type_label() }}) as step,
        {{ step }}_date as step_date,
        {{ step }}_at as step_at,
        {%- if step == 'list_due' %}
        {{ flag('list_due_at <= ' ~ as_of()) }} as is_list_due_by_now,
        {{ flag('list_due_at <= ' ~ as_of() ~ ' and list_out_at <= list_due_at') }}
            as is_list_on_time,
        is_list_overdue,
        {%- else %}
        0 as is_list_due_by_now,
        0 as is_list_on_time,
        0 as is_list_overdue,
        {%- endif %}
        {%- if step == 'list_out' %}
        {{ flag('first_sale_at is not null') }} as is_list_with_sale,
        list_size,
        sales_from_list,
        {%- else %}
        0 as is_list_with_sale,
        cast(null as bigint) as list_size,
        cast(null as bigint) as sales_from_list,
        {%- endif %}
        {%- if step in durations %}
        has_impossible_{{ durations[step] }} as has_impossible_duration,
        {{ durations[step] }}_seconds as seconds_since_step_before
        {%- else %}
        0 as has_impossible_duration,
        cast(null as bigint) as seconds_since_step_before
        {%- endif %}
    from {{ ref('int_pipeline_items') }}
    where {{ step }}_date is not null
    {%- if not loop.last %}
    union all
    {%- endif %}
    {%- endfor %}
),

final as (
    select
        placed.item_key,
        placed.step,
        placed.source_system,
        placed.project_id,
        placed.item_id,
        placed.facility_id,
        placed.rep_id,
        coalesce(roster.team_id, 'unassigned') as team_id,
        placed.excluded_reason,
        placed.record_origin,
        placed.is_list_due_by_now,
        placed.is_list_on_time,
        placed.is_list_overdue,
        placed.is_list_with_sale,
        placed.has_impossible_duration,
        placed.list_size,
        placed.sales_from_list,
        placed.seconds_since_step_before,
        placed.step_date,
        {{ month_of_date('placed.step_date') }} as month,
        placed.step_at,
        {{ built_at() }} as updated_at
    from placed
    left join roster
        on
            {{ in_team_on('placed', 'placed.step_date') | indent(12) }}
)

select * from final
