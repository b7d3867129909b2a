{%- set fields = {
    'amount': 'amount',
    'deal_currency_code': 'currency',
    'hs_deal_stage_probability': 'probability',
    'closedate': 'expected_close_date',
    'hubspot_owner_id': 'owner',
    'dealstage': 'stage',
    'pipeline': 'pipeline',
} %}

with

deal_history as (
    select * from {{ ref('base_hubspot__deal_history') }}
),

stages as (
    select * from {{ ref('base_hubspot__deal_stages') }}
),

projects as (
    select * from {{ ref('base_settings__projects') }}
),

zoned_history as (
    select
        deal_history.*,
        coalesce(projects.timezone, 'UTC') as timezone
    from deal_history
    left join projects
        on
            deal_history.source_system = projects.source_system
            and deal_history.project_id = projects.project_id
),

known_values as (
    select
        project_id,
        deal_id,
        case property
            {%- for property, field in fields.items() %}
            when '{{ property }}' then '{{ field }}'
            {%- endfor %}
        end as field,
        case
            when property = 'closedate'
                then cast({{ local_period("'day'", 'instant', 'timezone') }} as {{ type_label() }})
            else coalesce({{ plain_number('number') }}, value)
        end as value,
        sequence,
        changed_at,
        fetched_at
    from zoned_history
    where
        property in (
            {%- for property in fields %}
            '{{ property }}'{{ ',' if not loop.last }}
            {%- endfor %}
        )
    union all
    select
        deal_history.project_id,
        deal_history.deal_id,
        'status' as field,
        stages.status as value,
        deal_history.sequence,
        deal_history.changed_at,
        deal_history.fetched_at
    from deal_history
    inner join stages
        on
            deal_history.project_id = stages.project_id
            and deal_history.value = stages.stage_id
    where deal_history.property = 'dealstage'
),

-- Of several values that a property takes at one instant, the last one counts.
ranked_values as (
    select
        known_values.*,
        row_number() over (
            partition by project_id, deal_id, field, changed_at order by sequence desc
        ) as place_from_end
    from known_values
),

compared_values as (
    select
        project_id,
        deal_id,
        field,
        lag(value) over (partition by project_id, deal_id, field order by sequence) as old_value,
        value as new_value,
        changed_at,
        fetched_at
    from ranked_values
    where place_from_end = 1
),

final as (
    select
        cast('hubspot' as {{ type_label() }}) as source_system,
        project_id,
        cast('deal' as {{ type_label() }}) as entity_type,
        deal_id as entity_id,
        field,
        old_value,
        new_value,
        changed_at,
        fetched_at as ingested_at,
        {{ dbt.concat(["'deal '", 'deal_id', "', history'"]) }} as record_origin
    from compared_values
    where new_value is distinct from old_value
)

select * from final
