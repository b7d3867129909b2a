with

source as (
    select * from {{ source('settings', 'urgent_rules') }}
),

final as (
    select
        urgent_rule_id,
        source_system,
        project_id,
        rule_name,
        match_type,
        match_value,
        effective_from,
        effective_to
    from source
)

select * from final
