{#-
    int_call_hours is incremental by project and day: a run counts those days anew, whole, on which a
    call was or is counted that was written since the model was built. Which days these are the tables
    of calls note themselves, what a row said before included (`raw_files.call_days`). "Since" is a
    position, as in flow: the oldest transaction that still ran when the last run looked. Beside what
    was written, days change by the instant that the model is made for, and by settings of projects.
    `call_hours_contents` has a number of what each day holds, for models that stand on this one.
-#}

{#- A table beside int_call_hours, which `model` is. -#}
{% macro call_hours_state(name, model=this) -%}
    {{ return(model.incorporate(path={'identifier': 'call_hours_' ~ name})) }}
{%- endmacro %}

{#- In the transaction that builds the model, before it looks for changes. -#}
{% macro begin_call_hours() -%}
    {{ return(adapter.dispatch('begin_call_hours')()) }}
{%- endmacro %}

{% macro default__begin_call_hours() -%}
    {%- set days = call_hours_state('days') -%}
    {%- set noted = source('raw_files', 'call_days') -%}
    create table if not exists {{ days }} (
        source_system text,
        project_id text,
        call_date date,
        primary key (source_system, project_id, call_date)
    );
    create table if not exists {{ call_hours_state('contents') }} (
        source_system text,
        project_id text,
        call_date date,
        contents numeric not null,
        primary key (source_system, project_id, call_date)
    );
    {{ begin_position() }}
    truncate {{ days }};
    {%- if builds_changes() %}
    insert into {{ days }} (source_system, project_id, call_date)
    with
    since as (
        {{ since_position() }}
    ),
    changed as (
        select noted.source_system, noted.project_id, noted.utc_day
        from {{ noted }} as noted
        cross join since
        where {{ is_written_since('noted.written_xid', 'since.position') }}
        union
        select noted.source_system, noted.project_id, noted.utc_day
        from {{ noted }} as noted
        inner join {{ ref('base_settings__changes') }} as settings_changes
            on
                noted.source_system = settings_changes.source_system
                and noted.project_id = settings_changes.project_id
        cross join since
        where
            settings_changes.table_name in ('projects', 'field_map')
            and {{ is_written_since('settings_changes.written_xid', 'since.position') }}
        union
        -- What lay ahead and has come to pass since, or the other way round.
        select noted.source_system, noted.project_id, noted.utc_day
        from {{ noted }} as noted
        cross join since
        where
            noted.utc_day >= (since.earlier at time zone 'UTC')::date
            and noted.utc_day <= (since.later at time zone 'UTC')::date
        union
        select calls.source_system, calls.project_id, (calls.scheduled_at at time zone 'UTC')::date
        from {{ ref('stg_activities') }} as calls
        where
            calls.activity_type = 'call'
            and {{ local_day('calls.completed_at', "'UTC'") }}
            between {{ local_day('(select earlier from since)', "'UTC'") }}
            and {{ local_day('(select later from since)', "'UTC'") }}
            and calls.scheduled_at is not null
        union
        -- What was not written down yet at the one instant, and was at the other.
        select calls.source_system, calls.project_id, days.utc_day
        from {{ ref('stg_activities') }} as calls
        cross join lateral (
            values
            ((calls.scheduled_at at time zone 'UTC')::date),
            ((calls.completed_at at time zone 'UTC')::date)
        ) as days (utc_day)
        where
            calls.activity_type = 'call'
            and {{ local_day('calls.created_at', "'UTC'") }}
            between {{ local_day('(select earlier from since)', "'UTC'") }}
            and {{ local_day('(select later from since)', "'UTC'") }}
            and days.utc_day is not null
    )
    -- The day of an instant in some zone is that in UTC, the one before, or the one after.
    select distinct changed.source_system, changed.project_id, changed.utc_day + around.days
    from changed
    cross join (values (-1), (0), (1)) as around (days);
    {%- endif %}
    analyze {{ days }};
{%- endmacro %}

{% macro spark__begin_call_hours() -%} {%- endmacro %}

{#- In the same transaction, at its end. -#}
{% macro remember_call_hours() -%}
    {{ return(adapter.dispatch('remember_call_hours')()) }}
{%- endmacro %}

{% macro default__remember_call_hours() -%}
    {%- set days = call_hours_state('days') -%}
    {%- set contents = call_hours_state('contents') -%}
    {{ remember_position() }}
    {%- if builds_changes() %}
    delete from {{ contents }} using {{ days }} as days
    where
        {{ contents }}.source_system = days.source_system
        and {{ contents }}.project_id = days.project_id
        and {{ contents }}.call_date = days.call_date;
    {%- else %}
    truncate {{ contents }};
    {%- endif %}
    insert into {{ contents }} (source_system, project_id, call_date, contents)
    select
        source_system,
        project_id,
        call_date,
        sum({{ contents_of('hour', [
            'rep_id', 'call_hour', 'booked', 'due', 'held', 'conducted',
        ]) }})
    from {{ this }}
    where
        (source_system, project_id, call_date)
        in (select source_system, project_id, call_date from {{ days }})
        or not exists (select from {{ contents }})
    group by source_system, project_id, call_date;
{%- endmacro %}

{% macro spark__remember_call_hours() -%} {%- endmacro %}

{#- Where a run counts what changed, the condition that a call counts on such a day. The array says it
    again, less exactly: PostgreSQL carries it into views and to indexes, a join it does not. -#}
{% macro and_call_day_is_to_build() -%}
    {%- if not execute -%}
        {%- do ref('stg_activities') -%}
        {%- do ref('base_settings__changes') -%}
        {%- do source('raw_files', 'call_days') -%}
    {%- elif builds_changes() -%}
        {%- set days = call_hours_state('days') %}
        and (source_system, project_id, call_date)
        in (select source_system, project_id, call_date from {{ days }})
        and utc_day = any(array(
            select distinct call_date - date '1970-01-01' + around.days
            from {{ days }}
            cross join (values (-1), (0), (1)) as around (days)
        ))
    {%- endif -%}
{%- endmacro %}

{#- dbt's incremental materialization asks for this by the name of the strategy. -#}
{% macro get_incremental_by_call_day_sql(arguments) -%}
    {%- set columns = get_quoted_csv(arguments.dest_columns | map(attribute='name')) -%}
    {%- set days = call_hours_state('days') %}
    delete from {{ arguments.target_relation }} as built
    using {{ days }} as days
    where
        built.source_system = days.source_system
        and built.project_id = days.project_id
        and built.call_date = days.call_date;
    insert into {{ arguments.target_relation }} ({{ columns }})
    select {{ columns }}
    from {{ arguments.temp_relation }};
{%- endmacro %}
