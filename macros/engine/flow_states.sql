{#-
    Up to where each flow model holds what was written, and whether anything was since: what a refresh
    asks before it builds them. What would make one of them hold other rows was written to the log or
    to the settings, or lay ahead when it was built, or is what positions stand on. Asked between
    builds, so for the moment of the question, whatever instant was given to the run that makes it;
    by that, deletions count at once, whenever they are said to have happened.
-#}
{% macro flow_states() -%}
    {{ return(adapter.dispatch('flow_states')()) }}
{%- endmacro %}

{% macro default__flow_states() -%}
    {%- set since = over_flow_positions('min(position)') %}
    {%- set of_webhooks = flow_position_of(ref('webhook_stats')) %}
    {%- set earlier = over_flow_positions('least(min(as_of), ' ~ read_at() ~ ')') %}
    {%- set later = over_flow_positions('greatest(max(as_of), ' ~ read_at() ~ ')') %}
    with

    entities as (
        select
            not exists (
                select 1 from {{ flow_basis_kept(this) }}
                where basis = {{ flow_basis('by now') }}
            )
            or exists (
                select 1 from {{ ref('base_settings__changes') }}
                where {{ is_written_since('written_xid', since) }}
            )
            or exists (
                select 1 from {{ entity_changes() }} as written
                where {{ is_written_since('written_xid', since) }}
            )
            or exists (
                select 1 from {{ ref('int_stage_intervals') }}
                where
                    {{ is_any_visit_after(earlier) }}
                    and entered_at > {{ earlier }}
                    and entered_at <= {{ later }}
            ) as is_behind
    ),

    webhooks as (
        select
            exists (
                select 1 from {{ ref('base_receiver__deliveries') }}
                where {{ is_written_since('written_xid', of_webhooks) }}
            )
            or exists (
                select 1 from {{ ref('base_receiver__replays') }}
                where {{ is_written_since('written_xid', of_webhooks) }}
            )
            or exists (
                select 1 from {{ ref('base_receiver__refusals') }}
                where {{ is_written_since('written_xid', of_webhooks) }}
            ) as is_behind
    )

    select
        positions.model,
        positions.position as built_xid,
        positions.as_of as built_as_of,
        case
            when positions.model = '{{ ref('webhook_stats').identifier }}' then webhooks.is_behind
            else entities.is_behind
        end as is_behind
    from {{ flow_positions(this) }} as positions
    cross join entities
    cross join webhooks
{%- endmacro %}

{#- All is built each time. -#}
{% macro spark__flow_states() -%}
    select
        cast(null as {{ type_label() }}) as model,
        cast(null as bigint) as built_xid,
        cast(null as {{ type_instant() }}) as built_as_of,
        true as is_behind
    where false
{%- endmacro %}
