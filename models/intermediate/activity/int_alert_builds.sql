{#- What has been built is kept nowhere else, so a full refresh leaves it. -#}
{{ config(
    materialized='incremental',
    incremental_strategy='delete+insert',
    unique_key='build',
    full_refresh=false,
) }}

with

builds as (
    select {{ as_of() }} as known_at
    {%- if is_incremental() %}
    union all
    select known_at from {{ this }}
    {%- endif %}
),

final as (
    select
        cast('latest' as {{ type_label() }}) as build,
        max(known_at) as known_at
    from builds
)

select * from final
