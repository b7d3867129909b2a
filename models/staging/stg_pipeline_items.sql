with

items as (
    select * from {{ ref('base_files__pipeline_items') }}
),

records as (
    {{ records_of_active_projects([ref('base_files__pipeline_items')]) }}
),

sales_stages as (
    select * from {{ ref('sales_stages') }}
),

named_stages as (
    select distinct
        stage,
        upper(replace(replace(trim(stage), ' ', '_'), '-', '_')) as alias
    from items
),

-- Of several aliases that fit, the longest says most.
known_stages as (
    select
        named_stages.stage,
        sales_stages.sales_stage,
        row_number() over (
            partition by named_stages.stage order by length(sales_stages.alias) desc
        ) as preference
    from named_stages
    inner join sales_stages
        on
            named_stages.alias = sales_stages.alias
            or (
                sales_stages.is_prefix
                and substr(named_stages.alias, 1, length(sales_stages.alias)) = sales_stages.alias
            )
),

final as (
    select
        {{ entity_key('item_id') }} as item_key,
        records.source_system,
        records.project_id,
        records.item_id,
        case when records.lead_id is not null then {{ entity_key('lead_id') }} end as lead_key,
        case
            when records.sublist_id is not null then {{ entity_key('sublist_id') }}
        end as sublist_key,
        coalesce(records.facility_id, 'unassigned') as facility_id,
        coalesce(records.rep_id, 'unassigned') as rep_id,
        records.stage,
        known_stages.sales_stage,
        records.partner_list_size,
        records.total_sales_from_list,
        coalesce(records.is_deleted, false) as is_deleted,
        records.timezone,
        records.created_at,
        records.call_booked_at,
        records.call_conducted_at,
        records.proposal_at,
        records.agreement_at,
        records.partner_list_due_at,
        records.partner_list_sent_at,
        records.first_sale_at,
        records.closed_at,
        coalesce(records.updated_at, records.created_at) as changed_at,
        records.record_origin
    from records
    left join known_stages
        on
            records.stage = known_stages.stage
            and known_stages.preference = 1
)

select * from final
