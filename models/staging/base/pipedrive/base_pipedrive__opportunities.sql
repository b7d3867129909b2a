{%- set fields = ['facility_id', 'rep_id', 'lead_id', 'company'] %}
{%- set columns = {
    'channel': 'channel',
    'channel_id': 'channel_id',
    'creator_user_id': 'creator_user_id',
    'currency': 'currency',
    'lost_reason': 'lost_reason',
    'org_id': 'org_id',
    'origin': 'origin',
    'origin_id': 'origin_id',
    'owner_id': 'owner_id',
    'person_id': 'person_id',
    'pipeline_id': 'pipeline_id',
    'stage_id': 'stage_id',
    'status': 'status',
    'title': 'title',
} %}

with

deals as (
    select * from {{ source('raw_pipedrive', 'listed_deals') }}
),

stages as (
    select * from {{ source('raw_pipedrive', 'stages') }}
),

deal_fields as (
    select * from {{ source('raw_pipedrive', 'deal_fields') }}
),

options as (
    select * from {{ source('raw_pipedrive', 'deal_field_options') }}
),

organizations as (
    select * from {{ source('raw_pipedrive', 'organizations') }}
),

states as (
    select * from {{ ref('base_pipedrive__deals') }}
),

field_map as (
    select * from {{ ref('base_settings__field_map') }}
    where source_system = 'pipedrive' and entity = 'deals'
),

mapped_fields as (
    {%- for field in fields %}
    select
        project_id,
        cast('{{ field }}' as {{ type_label() }}) as field,
        {{ field }} as crm_field
    from field_map
    where {{ field }} is not null
    {%- if not loop.last %}
    union all
    {%- endif %}
    {%- endfor %}
),

-- A field is named by its key or by what people call it.
mapped_keys as (
    select
        mapped_fields.project_id,
        mapped_fields.field,
        coalesce(
            max(
                case
                    when deal_fields.field_key = mapped_fields.crm_field
                        then deal_fields.field_key
                end
            ),
            min(deal_fields.field_key),
            mapped_fields.crm_field
        ) as field_key
    from mapped_fields
    left join deal_fields
        on
            mapped_fields.project_id = deal_fields.project_id
            and mapped_fields.crm_field in (deal_fields.field_key, deal_fields.name)
    group by
        mapped_fields.project_id,
        mapped_fields.field,
        mapped_fields.crm_field
),

custom_values as (
    select
        deals.project_id,
        deals.deal_id,
        mapped_keys.field,
        mapped_keys.field_key,
        {{ mapped_field('deals', 'mapped_keys.field_key', columns) }} as value
    from deals
    inner join mapped_keys on deals.project_id = mapped_keys.project_id
),

-- Of a field with options, the deal has the option's id.
mapped_values as (
    select
        {%- for field in fields %}
        max(
            case
                when custom_values.field = '{{ field }}'
                    then coalesce(options.label, custom_values.value)
            end
        ) as {{ field }},
        {%- endfor %}
        custom_values.project_id,
        custom_values.deal_id
    from custom_values
    left join options
        on
            custom_values.project_id = options.project_id
            and custom_values.field_key = options.field_key
            and custom_values.value = options.option_id
    group by
        custom_values.project_id,
        custom_values.deal_id
),

final as (
    select
        cast('pipedrive' as {{ type_label() }}) as source_system,
        deals.project_id,
        deals.deal_id as opportunity_id,
        mapped_values.lead_id,
        mapped_values.facility_id,
        coalesce(mapped_values.rep_id, deals.owner_id) as rep_id,
        deals.title as name,
        coalesce(mapped_values.company, organizations.name) as company,
        coalesce(stages.name, deals.stage_id) as stage,
        case
            when deals.status in ('won', 'lost') then deals.status
            when deals.is_archived then 'archived'
            else 'open'
        end as status,
        deals.value as amount,
        deals.currency,
        -- A deal without a chance of its own has that of its stage.
        coalesce(deals.probability, stages.deal_probability) * 0.01 as win_probability,
        deals.added_at as created_at,
        -- A deal that was opened again may keep the times of before.
        case
            when deals.status = 'won' then coalesce(deals.won_at, deals.closed_at)
            when deals.status = 'lost' then coalesce(deals.lost_at, deals.closed_at)
            when deals.is_archived then coalesce(deals.archived_at, deals.updated_at)
        end as closed_at,
        deals.expected_close_date,
        deals.updated_at,
        coalesce(states.is_deleted, false) or coalesce(states.is_gone, false) as is_deleted,
        {{ dbt.concat(["'deal '", 'deals.deal_id']) }} as record_origin
    from deals
    left join states
        on
            deals.project_id = states.project_id
            and deals.deal_id = states.deal_id
    left join stages
        on
            deals.project_id = stages.project_id
            and deals.stage_id = stages.stage_id
    left join organizations
        on
            deals.project_id = organizations.project_id
            and deals.org_id = organizations.organization_id
    left join mapped_values
        on
            deals.project_id = mapped_values.project_id
            and deals.deal_id = mapped_values.deal_id
)

select * from final
