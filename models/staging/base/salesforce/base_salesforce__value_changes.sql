{%- set values = {
    'amount': plain_number('amount'),
    'currency': 'currency',
    'probability': plain_number('win_probability'),
    'expected_close_date': 'cast(close_date as ' ~ type_label() ~ ')',
    'stage': 'stage_name',
    'status': 'status',
} %}
{%- set tracked = {'Owner': ('owner', 'owner_id'), 'RecordType': ('pipeline', 'record_type_id')} %}

with

snapshots as (
    select * from {{ ref('base_salesforce__snapshots') }}
),

opportunities as (
    select * from {{ source('raw_salesforce', 'opportunities') }}
),

field_history as (
    select * from {{ source('raw_salesforce', 'opportunity_field_history') }}
),

-- Of changes within a second the last counts: what it leaves is what others compare with.
states as (
    {%- for field, value in values.items() %}
    select
        project_id,
        opportunity_id,
        '{{ field }}' as field,
        {{ value }} as value,
        history_id,
        created_at,
        fetched_at
    from snapshots
    where is_last_of_instant
    {{- ' union all' if not loop.last }}
    {%- endfor %}
),

compared as (
    select
        states.*,
        lag(value) over (
            partition by project_id, opportunity_id, field order by created_at
        ) as previous_value
    from states
),

-- A change of a record that another one refers to is told twice: by names, and by ids.
tracked_changes as (
    select
        project_id,
        opportunity_id,
        case field
            {%- for name, (field, _) in tracked.items() %}
            when '{{ name }}' then '{{ field }}'
            {%- endfor %}
        end as field,
        history_id,
        old_value,
        new_value,
        created_at,
        fetched_at,
        row_number() over (
            partition by project_id, opportunity_id, field
            order by
                created_at,
                {{ by_bytes('history_id') }}
        ) as place,
        row_number() over (
            partition by project_id, opportunity_id, field, created_at
            order by {{ by_bytes('history_id') }} desc
        ) = 1 as is_last_of_instant
    from field_history
    where
        field in ('Owner', 'RecordType')
        and data_type = 'EntityId'
        and opportunity_id is not null
        and created_at is not null
),

-- What a tracked value was in the beginning: what its first change left or, before any, what it is.
beginnings as (
    {%- for field, column in tracked.values() %}
    select
        opportunities.project_id,
        opportunities.opportunity_id,
        '{{ field }}' as field,
        case
            when changes.opportunity_id is null then opportunities.{{ column }}
            else changes.old_value
        end as value,
        opportunities.created_at,
        opportunities.fetched_at
    from opportunities
    left join tracked_changes as changes
        on
            opportunities.project_id = changes.project_id
            and opportunities.opportunity_id = changes.opportunity_id
            and changes.field = '{{ field }}'
            and changes.place = 1
    where
        opportunities.created_at is not null
        and (changes.created_at is null or changes.created_at > opportunities.created_at)
    {{- ' union all' if not loop.last }}
    {%- endfor %}
),

changes as (
    select
        project_id,
        opportunity_id,
        field,
        previous_value as old_value,
        value as new_value,
        created_at as changed_at,
        fetched_at,
        {{ dbt.concat(["', history '", 'history_id']) }} as place_of_origin
    from compared
    where value is distinct from previous_value
    union all
    select
        project_id,
        opportunity_id,
        field,
        old_value,
        new_value,
        created_at as changed_at,
        fetched_at,
        {{ dbt.concat(["', field history '", 'history_id']) }} as place_of_origin
    from tracked_changes
    where is_last_of_instant
    union all
    select
        project_id,
        opportunity_id,
        field,
        cast(null as {{ type_label() }}) as old_value,
        value as new_value,
        created_at as changed_at,
        fetched_at,
        ', its beginning' as place_of_origin
    from beginnings
    where value is not null
),

final as (
    select
        cast('salesforce' as {{ type_label() }}) as source_system,
        project_id,
        cast('deal' as {{ type_label() }}) as entity_type,
        opportunity_id as entity_id,
        field,
        old_value,
        new_value,
        changed_at,
        fetched_at as ingested_at,
        {{ dbt.concat(["'opportunity '", 'opportunity_id', 'place_of_origin']) }} as record_origin
    from changes
)

select * from final
