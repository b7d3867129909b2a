{#- What several days have to bring. Thirds of a target are cut somewhere: together they stay a little
    under the half that would be rounded up. -#}
{% macro target_of_days(target, working_days, days) -%}
    round(round(sum(
        round(cast({{ target }} as {{ type_number() }}) / {{ working_days }}, 12) * {{ days }}
    ), 10), 4)
{%- endmacro %}

{#- Query of the ranges of days on which one target counts, of `candidates` (keys, place, target,
    day_from, day_to, which is null where no end is known). On each day those of place 1 count if there
    are any, else those of place 2; several of one place add up. What a range adds it takes away after
    its end, and running sums tell what counts: no range is held against another one. -#}
{% macro target_ranges(candidates, keys) -%}
    {%- set keys = keys | join(', ') -%}
    select
        {{ keys }},
        day_from,
        {{ date_of_day('next_day - 1') }} as day_to,
        case when count_1 > 0 then 1 else 2 end as place,
        case when count_1 > 0 then target_1 else target_2 end as target
    from (
        select
            {{ keys }},
            changed_on as day_from,
            {{ day_of_date('lead(changed_on) over in_order') }} as next_day,
            {%- for place in [1, 2] %}
            sum(sum(case when place = {{ place }} then change else 0 end)) over in_order
                as count_{{ place }},
            sum(sum(case when place = {{ place }} then change * target else 0 end)) over in_order
                as target_{{ place }}
            {{- ',' if not loop.last }}
            {%- endfor %}
        from (
            select {{ keys }}, place, target, day_from as changed_on, 1 as change
            from {{ candidates }}
            union all
            select
                {{ keys }}, place, target, {{ date_of_day(day_of_date('day_to') ~ ' + 1') }}, -1
            from {{ candidates }}
            where day_to is not null
        ) as changes
        group by {{ keys }}, changed_on
        window in_order as (partition by {{ keys }} order by changed_on)
    ) as totals
    where count_1 > 0 or count_2 > 0
{%- endmacro %}

{#- Query of parts (project, first_day, last_day, and what else there is) with the working days before
    them and until their ends. Working days are numbered: how many lie in a part is a difference. -#}
{% macro numbered_parts(parts, work_days) -%}
    select
        parts.*,
        first_days.working_days_before as days_before,
        last_days.working_days_before + last_days.is_working_day as days_until
    from {{ parts }} as parts
    inner join {{ work_days }} as first_days
        on
            parts.source_system = first_days.source_system
            and parts.project_id = first_days.project_id
            and parts.first_day = first_days.date_day
    inner join {{ work_days }} as last_days
        on
            parts.source_system = last_days.source_system
            and parts.project_id = last_days.project_id
            and parts.last_day = last_days.date_day
{%- endmacro %}
