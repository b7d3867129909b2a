{%- set fields = {
    'value': 'amount',
    'currency': 'currency',
    'probability': 'probability',
    'expected_close_date': 'expected_close_date',
    'user_id': 'owner',
    'owner_id': 'owner',
    'status': 'status',
    'stage_id': 'stage',
    'pipeline_id': 'pipeline',
} %}
{%- set current_values = {
    'amount': plain_number('value'),
    'currency': 'upper(currency)',
    'probability': plain_number('probability / 100'),
    'expected_close_date': 'cast(expected_close_date as ' ~ type_label() ~ ')',
    'owner': 'owner_id',
    'status': "case when status = 'deleted' then 'open' else status end",
    'stage': 'stage_id',
    'pipeline': 'pipeline_id',
} %}
{#- A deleted deal tells, in place of its status, that it is: it was open unless that changed. #}

with

deals as (
    select * from {{ ref('base_pipedrive__deals') }}
),

listed_deals as (
    select * from {{ source('raw_pipedrive', 'listed_deals') }}
),

deal_changes as (
    select * from {{ ref('base_pipedrive__deal_changes') }}
),

-- Numbers without zeros that say nothing, days as such; chances are counted in percent there.
changes as (
    select
        project_id,
        deal_id,
        change_id,
        case field_key
            {%- for key, field in fields.items() %}
            when '{{ key }}' then '{{ field }}'
            {%- endfor %}
        end as field,
        {%- for side in ['old_value', 'new_value'] %}
        case field_key
            when 'value' then {{ plain_number(number_of(side)) }}
            when 'currency' then upper({{ side }})
            when 'probability' then {{ plain_number(number_of(side) ~ ' / 100') }}
            when 'expected_close_date' then cast({{ date_of(side) }} as {{ type_label() }})
            else {{ side }}
        end as {{ side }},
        {%- endfor %}
        changed_at,
        fetched_at
    from deal_changes
    where changed_at is not null
),

-- Ids are numbers kept as text: the shorter one is the smaller one. Of several changes within a
-- second the last one counts.
ranked_changes as (
    select
        changes.*,
        row_number() over (
            partition by project_id, deal_id, field
            order by changed_at, length(change_id), change_id
        ) as place,
        row_number() over (
            partition by project_id, deal_id, field, changed_at
            order by length(change_id) desc, change_id desc
        ) as place_from_last
    from changes
    where field is not null
),

states as (
    select
        deals.project_id,
        deals.deal_id,
        deals.status,
        deals.stage_id,
        deals.pipeline_id,
        listed_deals.value,
        listed_deals.currency,
        listed_deals.probability,
        listed_deals.expected_close_date,
        listed_deals.owner_id,
        deals.added_at,
        deals.fetched_at,
        deals.is_history_missing
    from deals
    left join listed_deals
        on
            deals.project_id = listed_deals.project_id
            and deals.deal_id = listed_deals.deal_id
),

current_values as (
    {%- for field, value in current_values.items() %}
    select
        project_id,
        deal_id,
        '{{ field }}' as field,
        {{ value }} as value,
        added_at,
        fetched_at,
        is_history_missing
    from states
    {%- if not loop.last %}
    union all
    {%- endif %}
    {%- endfor %}
),

-- No change tells of the value that a deal began with: it is the one that the first change left,
-- or, before any change, the one that it has.
first_values as (
    select
        current_values.project_id,
        current_values.deal_id,
        current_values.field,
        case
            when ranked_changes.deal_id is not null then ranked_changes.old_value
            else current_values.value
        end as new_value,
        current_values.added_at as changed_at,
        coalesce(ranked_changes.fetched_at, current_values.fetched_at) as fetched_at
    from current_values
    left join ranked_changes
        on
            current_values.project_id = ranked_changes.project_id
            and current_values.deal_id = ranked_changes.deal_id
            and current_values.field = ranked_changes.field
            and ranked_changes.place = 1
    where
        case
            when ranked_changes.deal_id is null
                then not coalesce(current_values.is_history_missing, false)
            else current_values.added_at < ranked_changes.changed_at
        end
),

final as (
    select
        cast('pipedrive' as {{ type_label() }}) as source_system,
        project_id,
        cast('deal' as {{ type_label() }}) as entity_type,
        deal_id as entity_id,
        field,
        cast(null as {{ type_label() }}) as old_value,
        new_value,
        changed_at,
        fetched_at as ingested_at,
        {{ dbt.concat(["'deal '", 'deal_id', "', first value'"]) }} as record_origin
    from first_values
    where new_value is not null and changed_at is not null
    union all
    select
        cast('pipedrive' as {{ type_label() }}) as source_system,
        project_id,
        cast('deal' as {{ type_label() }}) as entity_type,
        deal_id as entity_id,
        field,
        old_value,
        new_value,
        changed_at,
        fetched_at as ingested_at,
        {{ dbt.concat(["'deal '", 'deal_id', "', change '", 'change_id']) }} as record_origin
    from ranked_changes
    where place_from_last = 1
)

select * from final
