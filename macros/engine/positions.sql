{#-
    Up to where a model of sales activity reflects what was written. A position is the oldest transaction
    that still ran when a run looked: all rows of older ones were visible, so a row that commits after one
    with a later time is not missed. Beside it stands the instant that the model was made for, as what
    lies between that and the next one changes what is to be seen, too; and what the position stands on:
    the server that counts transactions (a dump that is restored to another one brings positions that
    mean nothing there), the model's text, and what else it names. Where that differs, a run reads
    everything.
-#}

{% macro positions_of_this() -%}
    {{ return(intermediate_table(this.identifier ~ '_positions')) }}
{%- endmacro %}

{#- In the transaction that builds the model, before it looks for changes. -#}
{% macro begin_position(seed=none) -%}
    {%- set positions = positions_of_this() -%}
    create table if not exists {{ positions }} (
        state text primary key,
        position xid8 not null,
        as_of timestamptz not null,
        basis text not null
    );
    insert into {{ positions }} (state, position, as_of, basis)
    select
        'building',
        pg_snapshot_xmin(pg_current_snapshot()),
        {{ as_of() }},
        concat_ws(
            ' ',
            system_identifier,
            '{{ local_md5(model.raw_code) }}'
            {%- if seed %},
            (select sum({{ contents_of('seeded', ['seeded']) }}) from {{ seed }} as seeded)
            {%- endif %}
        )
    from pg_control_system()
    on conflict (state) do update set
        position = excluded.position, as_of = excluded.as_of, basis = excluded.basis;
{%- endmacro %}

{#- Query of the position since which a run has to look, 0 for all that there is, and of the span of
    instants that passed, or that it looks back over. -#}
{% macro since_position() -%}
    select
        case
            when
                built.basis = building.basis
                and building.position::text::bigint - built.position::text::bigint < 2000000000
                then built.position
            else '0'
        end as position,
        least(built.as_of, building.as_of) as earlier,
        greatest(built.as_of, building.as_of) as later
    from {{ positions_of_this() }} as building
    left join {{ positions_of_this() }} as built on built.state = 'built'
    where building.state = 'building'
{%- endmacro %}

{#- Condition that a row of a table was written since, by the transaction that PostgreSQL keeps with it:
    32 bits of its number, which tell apart the last two billions. -#}
{% macro is_row_written_since(row, position) -%}
    ({{ position }} = '0' or age({{ row }}.xmin) <= age(cast({{ position }} as xid)))
{%- endmacro %}

{#- In the transaction that builds the model, at its end. -#}
{% macro remember_position() -%}
    {%- set positions = positions_of_this() -%}
    delete from {{ positions }} where state = 'built';
    update {{ positions }} set state = 'built' where state = 'building';
{%- endmacro %}
