with

records as (
    {{ records_of_active_projects([ref('base_files__sales')]) }}
),

items as (
    select * from {{ ref('base_files__pipeline_items') }}
),

-- What a sale does not say itself, the item that it came from may.
placed as (
    select
        records.*,
        coalesce(records.lead_id, items.lead_id) as lead_of_sale,
        coalesce(records.facility_id, items.facility_id, 'unassigned') as facility_of_sale,
        coalesce(records.rep_id, items.rep_id, 'unassigned') as rep_of_sale
    from records
    left join items
        on
            records.source_system = items.source_system
            and records.project_id = items.project_id
            and records.item_id = items.item_id
),

final as (
    select
        {{ entity_key('sale_id') }} as sale_key,
        records.source_system,
        records.project_id,
        records.sale_id,
        case when records.item_id is not null then {{ entity_key('item_id') }} end as item_key,
        case
            when records.lead_of_sale is not null then {{ entity_key('lead_of_sale') }}
        end as lead_key,
        records.facility_of_sale as facility_id,
        records.rep_of_sale as rep_id,
        records.amount,
        upper(coalesce(records.currency, records.project_currency)) as currency,
        coalesce(records.is_deleted, false) as is_deleted,
        records.timezone,
        records.sold_at,
        records.record_origin
    from placed as records
)

select * from final
