{{ config(post_hook='{{ gather_statistics(this) }}') }}

{%- set steps = ['call', 'proposal', 'agreement', 'list_due', 'list_out', 'first_sale'] %}

with

items as (
    select * from {{ ref('fct_pipeline_items') }}
),

roster as (
    select * from {{ ref('int_roster') }}
),

steps as (
    {%- for step in steps %}
    select cast('{{ step }}' as {{ type_label() }}) as step
    {%- if not loop.last %}
    union all
    {%- endif %}
    {%- endfor %}
),

placed as (
    select
        items.*,
        steps.step,
        case steps.step
            {%- for step in steps %}
            when '{{ step }}' then items.{{ step }}_date
            {%- endfor %}
        end as step_date,
        case steps.step
            {%- for step in steps %}
            when '{{ step }}' then items.{{ step }}_at
            {%- endfor %}
        end as step_at
    from items
    cross join steps
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
        {{ flag("placed.step = 'list_due' and placed.list_due_at <= " ~ as_of()) }}
            as is_list_due_by_now,
        {{ flag("placed.step = 'list_due' and placed.list_due_at <= " ~ as_of()
            ~ ' and placed.list_out_at <= placed.list_due_at') }} as is_list_on_time,
        case when placed.step = 'list_due' then placed.is_list_overdue else 0 end
            as is_list_overdue,
        {{ flag("placed.step = 'list_out' and placed.first_sale_at is not null") }}
            as is_list_with_sale,
        case placed.step
            when 'agreement' then placed.has_impossible_proposal_to_agreement
            when 'list_out' then placed.has_impossible_agreement_to_list
            else 0
        end as has_impossible_duration,
        case when placed.step = 'list_out' then placed.list_size end as list_size,
        case when placed.step = 'list_out' then placed.sales_from_list end as sales_from_list,
        case placed.step
            when 'agreement' then placed.proposal_to_agreement_seconds
            when 'list_out' then placed.agreement_to_list_seconds
        end as seconds_since_step_before,
        placed.step_date,
        cast({{ dbt.date_trunc('month', 'placed.step_date') }} as date) as month,
        placed.step_at,
        placed.updated_at
    from placed
    left join roster
        on
            {{ in_team_on('placed', 'placed.step_date') | indent(12) }}
    where placed.step_date is not null
)

select * from final
