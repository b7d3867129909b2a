"""What deliveries said, apart from what is known of them: by month, so that months can be archived.

The bodies of a database that holds deliveries move to their months. dbt's view on the deliveries
names the columns that move, and is dropped: the next build makes it again.
"""

from alembic import op

revision = "0024"
down_revision = "0023"
branch_labels = None
depends_on = None

UNPARSED = """
create view raw.unparsed_deliveries as
select
    deliveries.delivery_id,
    deliveries.sender,
    deliveries.project_id,
    deliveries.received_at,
    {} as body_bytes,
    coalesce(replayed.unparsed_reason, deliveries.unparsed_reason) as unparsed_reason
from raw.deliveries
left join lateral (
    select
        replays.replayed_at,
        replays.unparsed_reason
    from raw.replays
    where replays.delivery_id = deliveries.delivery_id
    order by replays.replayed_at desc
    limit 1
) as replayed on true
where
    deliveries.unparsed_reason is not null
    and (replayed.replayed_at is null or replayed.unparsed_reason is not null);
comment on view raw.unparsed_deliveries is
    'One row per delivery of which some part still gives no events, with the reason.';
grant select on raw.unparsed_deliveries to stageline_jobs;
"""

UP_BEFORE = """
lock table raw.deliveries in access exclusive mode;

create table raw.delivery_bodies (
    delivery_id uuid not null,
    received_at timestamptz not null,
    headers jsonb not null,
    body bytea not null,
    primary key (delivery_id, received_at)
) partition by range (received_at);
comment on table raw.delivery_bodies is
    'One row per delivery whose body is not archived: what it said, as it came.';
comment on column raw.delivery_bodies.received_at is 'As raw.deliveries has it.';
create table raw.delivery_bodies_default partition of raw.delivery_bodies default;
comment on table raw.delivery_bodies_default is
    'Bodies of months that have no table of their own, until they get one.';

create function raw.make_body_partition(of_month date) returns boolean
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    partition_name text := 'delivery_bodies_' || to_char(of_month, 'YYYY_MM');
    begins timestamptz := of_month::timestamp at time zone 'UTC';
    ends timestamptz := (of_month + interval '1 month') at time zone 'UTC';
begin
    if to_regclass('raw.' || partition_name) is not null then
        return false;
    end if;
    -- Whoever writes to a month waits only where that is this one: `create table ... partition of`
    -- would hold up all of them.
    lock table raw.delivery_bodies_default in access exclusive mode;
    execute format('create table raw.%I (like raw.delivery_bodies including all)', partition_name);
    execute format(
        'with moved as ('
        ' delete from raw.delivery_bodies_default where received_at >= $1 and received_at < $2'
        ' returning *'
        ') insert into raw.%I select * from moved',
        partition_name
    ) using begins, ends;
    execute format(
        'alter table raw.delivery_bodies attach partition raw.%I for values from (%L) to (%L)',
        partition_name, begins, ends
    );
    return true;
end
$$;
comment on function raw.make_body_partition is
    'Makes the table of a month (its first day) and moves there what waits for it; false where it'
    ' is there.';
revoke all on function raw.make_body_partition from public;

create function raw.make_body_partitions(months_ahead integer) returns integer
language sql
security definer
set search_path = pg_catalog, pg_temp
set lock_timeout = '500ms'
as $$
    select count(*) filter (where raw.make_body_partition(of_month))
    from (
        select distinct date_trunc('month', received_at at time zone 'UTC')::date as of_month
        from raw.delivery_bodies_default
        union
        select (date_trunc('month', now() at time zone 'UTC') + make_interval(months => n))::date
        from generate_series(0, least(months_ahead, 120)) as n
    ) as wanted
$$;
comment on function raw.make_body_partitions is
    'Makes the tables of this month and the next ones, and of months whose bodies wait for one;'
    ' gives how many.';
revoke all on function raw.make_body_partitions from public;
grant execute on function raw.make_body_partitions to stageline_jobs;

create function raw.drop_empty_body_partitions(before_month date) returns integer
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
set lock_timeout = '500ms'
as $$
declare
    partition_name text;
    has_rows boolean;
    dropped integer := 0;
begin
    for partition_name in
        select relname
        from pg_inherits
        inner join pg_class on pg_class.oid = inhrelid
        where
            inhparent = 'raw.delivery_bodies'::regclass
            and relname ~ '^delivery_bodies_[0-9]+_[0-9]{2}$'
            and to_date(right(relname, -16), 'YYYY_MM') < before_month
    loop
        execute format('select exists (select from raw.%I)', partition_name) into has_rows;
        if has_rows then
            continue;
        end if;
        -- Before the last look: nothing may come in between that and the end.
        lock table raw.delivery_bodies in access exclusive mode;
        execute format('select exists (select from raw.%I)', partition_name) into has_rows;
        if not has_rows then
            execute format('drop table raw.%I', partition_name);
            dropped := dropped + 1;
        end if;
    end loop;
    return dropped;
end
$$;
comment on function raw.drop_empty_body_partitions is
    'Drops the tables of months before one (its first day) that hold nothing; gives how many.';
revoke all on function raw.drop_empty_body_partitions from public;
grant execute on function raw.drop_empty_body_partitions to stageline_jobs;

do $$
begin
    perform raw.make_body_partition(of_month)
    from (
        select distinct date_trunc('month', received_at at time zone 'UTC')::date as of_month
        from raw.deliveries
    ) as found;
    perform raw.make_body_partitions(3);
end
$$;
insert into raw.delivery_bodies (delivery_id, received_at, headers, body)
select delivery_id, received_at, headers, body from raw.deliveries;

-- One rewrite of the table, which gives the room of the bodies back: a mere drop would not.
drop view raw.unparsed_deliveries cascade;
alter table raw.deliveries
    drop column headers cascade,
    alter column body type integer using octet_length(body);
alter table raw.deliveries rename column body to body_bytes;
comment on table raw.deliveries is
    'One row per authentic delivery of a sender; a repeated one is the same row. What it said is in'
    ' raw.delivery_bodies, or archived.';
"""

UP_AFTER = """
grant select (body_bytes) on raw.deliveries to stageline_jobs;

grant insert on raw.delivery_bodies to stageline_receiver;
-- To remove what is archived, and to tell what is: without reading what was said.
grant select (delivery_id, received_at), delete on raw.delivery_bodies to stageline_jobs;

create table ops.archives (
    file_name text primary key,
    source_system text not null,
    project_id text not null,
    month date not null check (extract(day from month) = 1),
    begun_at timestamptz not null default now(),
    archived_at timestamptz,
    restored_at timestamptz,
    delivery_count bigint,
    file_bytes bigint,
    file_sha256 bytea check (octet_length(file_sha256) = 32),
    constraint archives_whole check (
        num_nulls(archived_at, delivery_count, file_bytes, file_sha256) in (0, 4)
        and (archived_at is not null or restored_at is null)
    )
);
comment on table ops.archives is
    'One row per file of bodies that left raw.delivery_bodies: of a project, received in a month.';
comment on column ops.archives.file_name is 'Below the folder of the archive.';
comment on column ops.archives.month is 'Its first day; months are those of UTC.';
comment on column ops.archives.archived_at is
    'When its bodies left the table; null = it is being written, or that was cut short.';
comment on column ops.archives.restored_at is
    'When its bodies were put back; null = the file alone has them.';
create index archives_of_project on ops.archives (source_system, project_id, month);
"""

DOWN_BEFORE = """
do $$
begin
    if exists (select from ops.archives where archived_at is not null and restored_at is null) then
        raise exception 'Bodies are archived. Run `stageline archive restore` first.';
    end if;
end
$$;
drop table ops.archives;
drop view raw.unparsed_deliveries cascade;
alter table raw.deliveries rename column body_bytes to body;
alter table raw.deliveries
    add column headers jsonb,
    alter column body drop not null,
    alter column body type bytea using null::bytea;
update raw.deliveries set headers = said.headers, body = said.body
from raw.delivery_bodies as said
where said.delivery_id = deliveries.delivery_id;
alter table raw.deliveries
    alter column headers set not null,
    alter column body set not null;
comment on table raw.deliveries is
    'One row per authentic delivery of a sender, as it came; a repeated one is the same row.';
"""

DOWN_AFTER = """
drop table raw.delivery_bodies;
drop function raw.drop_empty_body_partitions, raw.make_body_partitions, raw.make_body_partition;
"""


def upgrade() -> None:
    _run(UP_BEFORE + UNPARSED.format("deliveries.body_bytes") + UP_AFTER)


def downgrade() -> None:
    _run(DOWN_BEFORE + UNPARSED.format("octet_length(deliveries.body)") + DOWN_AFTER)


def _run(statements: str) -> None:
    op.get_bind().exec_driver_sql(statements, execution_options={"no_parameters": True})
