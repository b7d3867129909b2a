with

outreach as (
    select * from {{ ref('stg_outreach') }}
),

final as (
    select
        outreach_key,
        source_system,
        project_id,
        outreach_id,
        lead_key,
        facility_id,
        rep_id,
        channel,
        case
            when is_deleted then 'deleted'
            when sent_at > {{ as_of() }} then 'sent after as_of'
        end as excluded_reason,
        record_origin,
        {{ flag('responded_at <= ' ~ as_of()) }} as has_response,
        {{ flag('converted_at <= ' ~ as_of()) }} as has_conversion,
        sent_month as month,
        sent_at,
        case when responded_at <= {{ as_of() }} then responded_at end as responded_at,
        case when converted_at <= {{ as_of() }} then converted_at end as converted_at,
        {{ built_at() }} as updated_at
    from outreach
)

select * from final
