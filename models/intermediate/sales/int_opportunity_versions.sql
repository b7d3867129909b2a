{{ config(
    materialized='table',
    indexes=[{'columns': ['opportunity_key', 'valid_from'], 'unique': true}],
) }}

{%- set fields = {
    'amount': plain_number('amount'),
    'currency': 'currency',
    'probability': plain_number('win_probability'),
    'expected_close_date': 'cast(expected_close_date as ' ~ type_label() ~ ')',
    'owner': 'rep_id',
    'status': 'status',
    'stage': 'stage',
    'pipeline': 'cast(null as ' ~ type_label() ~ ')',
} %}
{%- set names = "('" ~ fields | join("', '") ~ "')" %}

with

opportunities as (
    select * from {{ ref('stg_opportunities') }}
),

value_changes as (
    select * from {{ ref('stg_value_changes') }}
    where entity_type = 'deal'
),

stages as (
    select * from {{ ref('base_settings__stages') }}
),

-- Where a field of its own tells the rep of a deal, changes of its owner tell nothing of the rep.
mapped_reps as (
    select * from {{ ref('base_settings__field_map') }}
    where entity = 'deals' and rep_id is not null
),

deletion_statements as (
    select * from {{ ref('int_deletion_statements') }}
    where entity_type = 'deal'
),

-- What was deleted and found again since is there.
last_statements as (
    select
        deletion_statements.*,
        row_number() over (
            partition by source_system, project_id, entity_id
            order by stated_at desc, ingested_at desc, is_deleted desc
        ) as place
    from deletion_statements
),

-- Nothing changes before the opportunity is there: what is said to, it began with.
told as (
    select
        opportunities.opportunity_key,
        value_changes.field,
        coalesce(old_stages.stage_name, value_changes.old_value) as old_value,
        coalesce(new_stages.stage_name, value_changes.new_value) as new_value,
        case
            when value_changes.changed_at < opportunities.created_at
                then opportunities.created_at
            else value_changes.changed_at
        end as changed_at,
        row_number() over (
            partition by opportunities.opportunity_key, value_changes.field
            order by
                value_changes.changed_at,
                value_changes.ingested_at,
                value_changes.record_origin
        ) as place
    from value_changes
    inner join opportunities
        on
            value_changes.source_system = opportunities.source_system
            and value_changes.project_id = opportunities.project_id
            and value_changes.entity_id = opportunities.opportunity_id
    left join stages as old_stages
        on
            value_changes.field = 'stage'
            and value_changes.source_system = old_stages.source_system
            and value_changes.project_id = old_stages.project_id
            and value_changes.old_value = old_stages.stage_id
    left join stages as new_stages
        on
            value_changes.field = 'stage'
            and value_changes.source_system = new_stages.source_system
            and value_changes.project_id = new_stages.project_id
            and value_changes.new_value = new_stages.stage_id
    left join mapped_reps
        on
            value_changes.field = 'owner'
            and value_changes.source_system = mapped_reps.source_system
            and value_changes.project_id = mapped_reps.project_id
    where value_changes.field in {{ names }} and mapped_reps.rep_id is null
),

-- A source that tells of no change of the outcome tells when it came about.
outcomes as (
    select
        opportunities.opportunity_key,
        'status' as field,
        'open' as old_value,
        opportunities.status as new_value,
        case
            when opportunities.closed_at < opportunities.created_at then opportunities.created_at
            else opportunities.closed_at
        end as changed_at,
        1 as place
    from opportunities
    where
        opportunities.status != 'open'
        and opportunities.closed_at is not null
        and not exists (
            select 1
            from told
            where
                opportunities.opportunity_key = told.opportunity_key
                and told.field = 'status'
        )
),

changes as (
    select * from told
    union all
    select * from outcomes
),

present as (
    {%- for field, value in fields.items() %}
    select
        opportunity_key,
        created_at,
        '{{ field }}' as field,
        {{ value }} as current_value
    from opportunities
    {{- ' union all' if not loop.last }}
    {%- endfor %}
),

-- Each value from the start: what the first change left, else what is there now.
beginnings as (
    select
        present.opportunity_key,
        present.field,
        case when changes.place is null then present.current_value else changes.old_value end
            as new_value,
        present.created_at as changed_at,
        0 as place
    from present
    left join changes
        on
            present.opportunity_key = changes.opportunity_key
            and present.field = changes.field
            and changes.place = 1
),

points as (
    select
        opportunity_key,
        field,
        new_value,
        changed_at,
        place
    from beginnings
    union all
    select
        opportunity_key,
        field,
        new_value,
        changed_at,
        place
    from changes
),

-- Of several changes of a value at one instant the last counts.
last_points as (
    select
        points.*,
        row_number() over (
            partition by opportunity_key, field, changed_at order by place desc
        ) as place_from_end
    from points
),

instants as (
    select
        {%- for field in fields %}
        max(case when field = '{{ field }}' then new_value end) as {{ field }},
        max({{ flag("field = '" ~ field ~ "'") }}) as has_{{ field }},
        {%- endfor %}
        opportunity_key,
        changed_at
    from last_points
    where place_from_end = 1
    group by
        opportunity_key,
        changed_at
),

spans as (
    select
        {%- for field in fields %}
        {{ field }},
        sum(has_{{ field }}) over in_order as {{ field }}_span,
        {%- endfor %}
        opportunity_key,
        changed_at
    from instants
    window in_order as (
        partition by opportunity_key
        order by changed_at
        rows between unbounded preceding and current row
    )
),

filled as (
    select
        {%- for field in fields %}
        max({{ field }}) over (partition by opportunity_key, {{ field }}_span) as {{ field }},
        {%- endfor %}
        opportunity_key,
        changed_at
    from spans
),

compared as (
    select
        filled.*,
        {%- for field in fields %}
        lag({{ field }}) over in_order as previous_{{ field }},
        {%- endfor %}
        row_number() over in_order as version_place
    from filled
    window in_order as (
        partition by opportunity_key
        order by changed_at
    )
),

versions as (
    select * from compared
    where
        version_place = 1
        {%- for field in fields %}
        or {{ field }} is distinct from previous_{{ field }}
        {%- endfor %}
),

final as (
    select
        versions.opportunity_key,
        opportunities.source_system,
        opportunities.project_id,
        opportunities.opportunity_id,
        cast(row_number() over in_order as integer) as version_number,
        coalesce(versions.status, 'open') as status,
        versions.stage,
        versions.pipeline as pipeline_id,
        coalesce(versions.owner, 'unassigned') as rep_id,
        upper(coalesce(versions.currency, opportunities.currency)) as currency,
        cast({{ number_of('versions.amount') }} as {{ type_money() }}) as amount,
        {{ number_of('versions.probability') }} as win_probability,
        {{ date_of('versions.expected_close_date') }} as expected_close_date,
        versions.changed_at as valid_from,
        lead(versions.changed_at) over in_order as valid_to,
        -- A source that does not say when takes its word back from the start.
        case
            when last_statements.is_deleted then last_statements.stated_at
            when opportunities.is_deleted then opportunities.created_at
        end as deleted_at
    from versions
    inner join opportunities on versions.opportunity_key = opportunities.opportunity_key
    left join last_statements
        on
            opportunities.source_system = last_statements.source_system
            and opportunities.project_id = last_statements.project_id
            and opportunities.opportunity_id = last_statements.entity_id
            and last_statements.place = 1
    window in_order as (
        partition by versions.opportunity_key
        order by versions.changed_at
    )
)

select * from final
