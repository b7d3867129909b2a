{#- State of an email that was not sent yet. -#}
{%- set draft = '5' %}

with

emails as (
    select * from {{ source('raw_salesforce', 'case_emails') }}
),

comments as (
    select * from {{ source('raw_salesforce', 'case_comments') }}
),

users as (
    select * from {{ source('raw_salesforce', 'users') }}
),

-- What was said stays said, also where the record of it is deleted later.
said as (
    select
        project_id,
        case_id,
        created_by_id,
        coalesce(sent_at, created_at) as answered_at,
        {{ dbt.concat(["'email '", 'email_id']) }} as record_origin
    from emails
    where
        not coalesce(is_incoming, false)
        and coalesce(status, '') != '{{ draft }}'
        and coalesce(automation_type, '') != 'AiAutomated'
    union all
    select
        project_id,
        case_id,
        created_by_id,
        created_at as answered_at,
        {{ dbt.concat(["'comment '", 'comment_id']) }} as record_origin
    from comments
    where is_published
),

-- Customers comment, too, and processes write by themselves: neither is an answer. Of a user that
-- is not known it is not said that it is one of them.
final as (
    select
        cast('salesforce' as {{ type_label() }}) as source_system,
        said.project_id,
        said.case_id,
        said.answered_at,
        said.record_origin
    from said
    left join users
        on
            said.project_id = users.project_id
            and said.created_by_id = users.user_id
    where
        coalesce(users.user_type, 'Standard') = 'Standard'
        and said.case_id is not null
        and said.answered_at is not null
)

select * from final
