with

source as (
    select * from {{ source('settings', 'audit_log') }}
),

-- A change touches what it held before and what it holds now.
rows_changed as (
    select
        audit_id,
        table_name,
        changed_xid,
        before as setting
    from source
    where before is not null
    union all
    select
        audit_id,
        table_name,
        changed_xid,
        after as setting
    from source
    where after is not null
),

final as (
    select
        audit_id,
        table_name,
        changed_xid as written_xid,
        {{ text_in('setting', 'source_system') }} as source_system,
        {{ text_in('setting', 'project_id') }} as project_id,
        {{ text_in('setting', 'pipeline_id') }} as pipeline_id,
        {{ text_in('setting', 'stage_id') }} as stage_id,
        {{ text_in('setting', 'group_id') }} as stage_group_id,
        {{ text_in('setting', 'order_id') }} as order_id,
        cast({{ text_in('setting', 'calendar_id') }} as bigint) as calendar_id,
        cast({{ text_in('setting', 'report_version') }} as integer) as report_version,
        {{ text_in('setting', 'state') }} as version_state
    from rows_changed
)

select * from final
