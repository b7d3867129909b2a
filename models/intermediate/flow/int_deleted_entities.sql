with

statements as (
    select * from {{ ref('int_deletion_statements') }}
),

ranked_statements as (
    select
        source_system,
        project_id,
        entity_type,
        entity_id,
        is_deleted,
        stated_at,
        row_number() over (
            partition by source_system, project_id, entity_type, entity_id
            order by stated_at desc, ingested_at desc, is_deleted desc
        ) as place
    from statements
    {%- if given_as_of() %}
    where stated_at <= {{ as_of() }}
    {%- endif %}
),

final as (
    select
        source_system,
        project_id,
        entity_type,
        entity_id,
        stated_at as deleted_at
    from ranked_statements
    where place = 1 and is_deleted
)

select * from final
