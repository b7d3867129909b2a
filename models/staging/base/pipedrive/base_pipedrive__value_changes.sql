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

stages as (
    select * from {{ source('raw_pipedrive', 'stages') }}
),

deal_changes as (
    select * from {{ ref('base_pipedrive__deal_changes') }}
),

-- A deletion is no outcome, and leaves the deal what it was: `int_deletion_statements` tells of it.
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
            when 'status' then case when {{ side }} = 'deleted' then 'open' else {{ side }} end
            else {{ side }}
        end as {{ side }},
        {%- endfor %}
        changed_at,
        fetched_at
    from deal_changes
    where
        changed_at is not null
        and (field_key != 'status' or new_value is distinct from 'deleted')
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
        case
            when listed_deals.is_archived and coalesce(deals.status not in ('won', 'lost'), true)
                then coalesce(listed_deals.archived_at, listed_deals.updated_at)
        end as put_aside_at,
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

-- An open deal that was archived is neither won nor lost, and has left the pipeline; it was put
-- aside after all else that was told of its outcome.
outcomes as (
    select
        project_id,
        deal_id,
        new_value,
        changed_at,
        row_number() over (
            partition by project_id, deal_id
            order by changed_at desc, length(change_id) desc, change_id desc
        ) as place_from_end
    from changes
    where field = 'status'
),

archivals as (
    select
        states.project_id,
        states.deal_id,
        'status' as field,
        'open' as old_value,
        'archived' as new_value,
        case
            when outcomes.changed_at >= states.put_aside_at
                then {{ dbt.dateadd('second', 1, 'outcomes.changed_at') }}
            else states.put_aside_at
        end as changed_at,
        states.fetched_at
    from states
    left join outcomes
        on
            states.project_id = outcomes.project_id
            and states.deal_id = outcomes.deal_id
            and outcomes.place_from_end = 1
    where states.put_aside_at is not null and coalesce(outcomes.new_value, 'open') = 'open'
),

told as (
    select
        project_id,
        deal_id,
        field,
        cast(null as {{ type_label() }}) as old_value,
        new_value,
        changed_at,
        fetched_at,
        ', first value' as place_of_origin
    from first_values
    where changed_at is not null and (new_value is not null or field = 'probability')
    union all
    select
        project_id,
        deal_id,
        field,
        old_value,
        new_value,
        changed_at,
        fetched_at,
        {{ dbt.concat(["', change '", 'change_id']) }} as place_of_origin
    from ranked_changes
    where place_from_last = 1
    union all
    select
        project_id,
        deal_id,
        field,
        old_value,
        new_value,
        changed_at,
        fetched_at,
        ', archived' as place_of_origin
    from archivals
),

-- A deal without a chance of its own has that of its stage: it changes with either of them.
chance_instants as (
    select
        {%- for field in ['probability', 'stage'] %}
        max(case when field = '{{ field }}' then old_value end) as old_{{ field }},
        max(case when field = '{{ field }}' then new_value end) as {{ field }},
        max({{ flag("field = '" ~ field ~ "'") }}) as has_{{ field }},
        {%- endfor %}
        project_id,
        deal_id,
        changed_at,
        max(fetched_at) as fetched_at,
        max(place_of_origin) as place_of_origin
    from told
    where field in ('probability', 'stage')
    group by project_id, deal_id, changed_at
),

chance_spans as (
    select
        chance_instants.*,
        {%- for field in ['probability', 'stage'] %}
        sum(has_{{ field }}) over in_order as {{ field }}_span,
        {%- endfor %}
        row_number() over in_order as place
    from chance_instants
    window in_order as (
        partition by project_id, deal_id
        order by changed_at
        rows between unbounded preceding and current row
    )
),

chance_parts as (
    select
        project_id,
        deal_id,
        {%- for field in ['probability', 'stage'] %}
        max({{ field }}) over (partition by project_id, deal_id, {{ field }}_span) as {{ field }},
        {%- endfor %}
        old_probability,
        old_stage,
        probability_span,
        place,
        changed_at,
        fetched_at,
        place_of_origin
    from chance_spans
),

-- A chance of its own that no change tells of has been there all along.
chances as (
    select
        chance_parts.project_id,
        chance_parts.deal_id,
        chance_parts.place,
        chance_parts.changed_at,
        chance_parts.fetched_at,
        chance_parts.place_of_origin,
        coalesce(
            chance_parts.old_probability,
            {{ plain_number('old_stages.deal_probability / 100') }}
        ) as first_old_value,
        coalesce(
            case
                when chance_parts.probability_span = 0
                    then {{ plain_number('states.probability / 100') }}
                else chance_parts.probability
            end,
            {{ plain_number('stages.deal_probability / 100') }}
        ) as value
    from chance_parts
    left join states
        on
            chance_parts.project_id = states.project_id
            and chance_parts.deal_id = states.deal_id
    left join stages
        on
            chance_parts.project_id = stages.project_id
            and chance_parts.stage = stages.stage_id
    left join stages as old_stages
        on
            chance_parts.project_id = old_stages.project_id
            and chance_parts.old_stage = old_stages.stage_id
),

chance_changes as (
    select
        chances.*,
        case
            when place = 1 then first_old_value
            else lag(value) over (partition by project_id, deal_id order by changed_at)
        end as old_value
    from chances
),

changed as (
    select
        project_id,
        deal_id,
        field,
        old_value,
        new_value,
        changed_at,
        fetched_at,
        place_of_origin
    from told
    where field != 'probability'
    union all
    select
        project_id,
        deal_id,
        'probability' as field,
        old_value,
        value as new_value,
        changed_at,
        fetched_at,
        place_of_origin
    from chance_changes
    where value is distinct from old_value
),

final as (
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
        {{ dbt.concat(["'deal '", 'deal_id', 'place_of_origin']) }} as record_origin
    from changed
)

select * from final
