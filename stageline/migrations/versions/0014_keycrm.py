"""What loads of KeyCRM keep beside what its webhooks lead to, in the same tables.

An order is one row, whether a load or the follow-up of a webhook has read it. KeyCRM has no history
of an order: so whoever writes the row, the database notes what changed of it.
"""

from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

UP = """
create schema raw_keycrm_staging authorization stageline_loader;

set local role stageline_loader;
comment on schema raw_keycrm is
    'What KeyCRM answered: orders, their items and changes, and the lists of the account.';
comment on schema raw_keycrm_staging is 'Scratch tables of a load in progress.';

alter table raw_keycrm.orders
    add column parent_id text,
    add column source_uuid text,
    add column manager_id text,
    add column buyer_id text,
    add column payment_status text,
    add column total_discount numeric,
    add column shipping_price numeric,
    add column utm_source text,
    add column utm_medium text,
    add column utm_campaign text,
    add column utm_term text,
    add column utm_content text,
    add column item_count bigint,
    add column items_mark text,
    add column status_changed_at timestamptz,
    add column gone_seen_at timestamptz,
    add column unreadable text,
    add column _dlt_load_id text,
    add column _dlt_id text not null default '';
comment on column raw_keycrm.orders.item_count is
    'How many items a load found; null where only follow-ups have read the order.';
comment on column raw_keycrm.orders.items_mark is
    'Differs where the items differ that a load found, so that the order is written with them.';
comment on column raw_keycrm.orders.gone_seen_at is 'When it was found gone.';
update raw_keycrm.orders set gone_seen_at = fetched_at where is_gone;

alter table raw_keycrm.order_items
    add column unreadable text,
    add column fetched_at timestamptz not null default now(),
    add column _dlt_load_id text,
    add column _dlt_id text not null default '';

create table raw_keycrm.order_changes (
    change_id bigint generated always as identity primary key,
    project_id text not null,
    order_id text not null,
    field text not null,
    old_value text,
    new_value text,
    stage_group_id text,
    changed_at timestamptz not null,
    is_dated boolean not null,
    fetched_at timestamptz not null
);
comment on table raw_keycrm.order_changes is
    'One row per change of a value of an order that was seen; facts, never rewritten.';
comment on column raw_keycrm.order_changes.field is
    'stage (the status), amount (the total), owner (the manager) or payment_status.';
comment on column raw_keycrm.order_changes.old_value is
    'Null where it was first seen. Equal to the new one where the order is back in its stage.';
comment on column raw_keycrm.order_changes.stage_group_id is 'Group of the new stage.';
comment on column raw_keycrm.order_changes.is_dated is
    'Whether KeyCRM says when; else changed_at is when the order last changed, or was seen.';
create index order_changes_of_order on raw_keycrm.order_changes (project_id, order_id);

create function raw_keycrm.keep_latest() returns trigger
language plpgsql
set search_path = pg_catalog
as $$
begin
    if tg_op = 'UPDATE' then
        if new._dlt_load_id is distinct from old._dlt_load_id then
            -- A load writes some time after it has read: a follow-up may know better by then.
            if
                old.fetched_at > new.fetched_at
                or (
                    old.updated_at > new.updated_at
                    and old.fetched_at > new.fetched_at - interval '10 minutes'
                )
            then
                return null;
            end if;
        else
            new._dlt_id := '';  -- the next load writes its own
        end if;
        if new.fetched_xid = old.fetched_xid then
            new.fetched_xid := pg_current_xact_id();
        end if;
    end if;
    new.gone_seen_at := case when new.is_gone then coalesce(new.gone_seen_at, new.fetched_at) end;
    return new;
end
$$;
comment on function raw_keycrm.keep_latest() is
    'Keeps a load from replacing what was read later, and notes who changed an order.';
create trigger keep_latest before insert or update on raw_keycrm.orders
    for each row execute function raw_keycrm.keep_latest();

create function raw_keycrm.keep_latest_item() returns trigger
language plpgsql
set search_path = pg_catalog
as $$
begin
    if
        exists (
            select from raw_keycrm.orders
            where
                project_id = new.project_id
                and order_id = new.order_id
                and fetched_at > new.fetched_at
        )
    then
        return null;
    end if;
    return new;
end
$$;
comment on function raw_keycrm.keep_latest_item() is
    'Keeps a load from replacing items that were read later.';
create trigger keep_latest_item before insert or update on raw_keycrm.order_items
    for each row when (new._dlt_load_id is not null)
    execute function raw_keycrm.keep_latest_item();

create function raw_keycrm.drop_surplus_items() returns trigger
language plpgsql
set search_path = pg_catalog
as $$
begin
    delete from raw_keycrm.order_items
    where
        project_id = new.project_id
        and order_id = new.order_id
        and position > new.item_count;
    return null;
end
$$;
comment on function raw_keycrm.drop_surplus_items() is
    'Removes the items that an order had and has no longer: a load only merges those that it has.';
create trigger drop_surplus_items after update on raw_keycrm.orders
    for each row when (new._dlt_load_id is distinct from old._dlt_load_id)
    execute function raw_keycrm.drop_surplus_items();

create function raw_keycrm.note_changes() returns trigger
language plpgsql
set search_path = pg_catalog
as $$
declare
    -- An order says when it last changed, and of its status alone when that did.
    changed_at constant timestamptz := case
        when tg_op = 'INSERT' then coalesce(new.updated_at, new.created_at, new.fetched_at)
        when new.updated_at = old.updated_at then new.fetched_at
        else coalesce(new.updated_at, new.fetched_at)
    end;
    moved_at constant timestamptz := nullif(new.status_changed_at, old.status_changed_at);
begin
    insert into raw_keycrm.order_changes (
        project_id, order_id, field, old_value, new_value, stage_group_id, changed_at, is_dated,
        fetched_at
    )
    select
        new.project_id,
        new.order_id,
        changes.field,
        changes.old_value,
        changes.new_value,
        case when changes.field = 'stage' then new.status_group_id end,
        coalesce(changes.told_at, changed_at),
        changes.told_at is not null,
        new.fetched_at
    from (
        values
        ('stage', old.status_id, new.status_id, moved_at),
        ('amount', trim_scale(old.grand_total)::text, trim_scale(new.grand_total)::text, null),
        ('owner', old.manager_id, new.manager_id, null),
        ('payment_status', old.payment_status, new.payment_status, null)
    ) as changes (field, old_value, new_value, told_at)
    where
        changes.old_value is distinct from changes.new_value
        or (changes.told_at > old.status_changed_at and changes.new_value is not null);
    return null;
end
$$;
comment on function raw_keycrm.note_changes() is
    'Keeps what changed of an order: KeyCRM tells how it is, never how it was.';
create trigger note_changes after insert or update on raw_keycrm.orders
    for each row execute function raw_keycrm.note_changes();

insert into raw_keycrm.order_changes (
    project_id, order_id, field, new_value, stage_group_id, changed_at, is_dated, fetched_at
)
select
    orders.project_id,
    orders.order_id,
    changes.field,
    changes.new_value,
    case when changes.field = 'stage' then orders.status_group_id end,
    coalesce(orders.updated_at, orders.created_at, orders.fetched_at),
    false,
    orders.fetched_at
from raw_keycrm.orders
cross join lateral (
    values ('stage', orders.status_id), ('amount', trim_scale(orders.grand_total)::text)
) as changes (field, new_value)
where changes.new_value is not null;

create table raw_keycrm.order_statuses (
    project_id text not null,
    status_id text not null,
    name text,
    alias text,
    group_id text,
    is_active boolean,
    is_closing_order boolean,
    is_reserved boolean,
    expiration_period bigint,
    created_at timestamptz,
    updated_at timestamptz,
    deleted_at timestamptz,
    is_gone boolean not null default false,
    gone_seen_at timestamptz,
    unreadable text,
    fetched_at timestamptz not null,
    _dlt_load_id text,
    _dlt_id text
);
comment on table raw_keycrm.order_statuses is
    'One row per status of orders; KeyCRM lists the active ones alone, others are gone here.';
create unique index order_statuses_key on raw_keycrm.order_statuses (project_id, status_id);

create table raw_keycrm.order_sources (
    project_id text not null,
    source_id text not null,
    name text,
    alias text,
    driver text,
    unreadable text,
    fetched_at timestamptz not null,
    _dlt_load_id text,
    _dlt_id text
);
comment on table raw_keycrm.order_sources is 'One row per source that orders come from.';
create unique index order_sources_key on raw_keycrm.order_sources (project_id, source_id);

create table raw_keycrm.users (
    project_id text not null,
    user_id text not null,
    full_name text,
    status text,
    unreadable text,
    fetched_at timestamptz not null,
    _dlt_load_id text,
    _dlt_id text
);
comment on table raw_keycrm.users is 'One row per user of the account, who may manage orders.';
create unique index users_key on raw_keycrm.users (project_id, user_id);

create table raw_keycrm.rejects (
    project_id text not null,
    reject_id text not null,
    table_name text,
    record text,
    reason text,
    unreadable text,
    fetched_at timestamptz not null,
    _dlt_load_id text,
    _dlt_id text
);
comment on table raw_keycrm.rejects is
    'One row per record that fits into no row, as it came, and why.';
create unique index rejects_key on raw_keycrm.rejects (project_id, reject_id);
revoke select on raw_keycrm.rejects from stageline_transformer;  -- no model reads it

reset role;
"""

DOWN = """
set local role stageline_loader;
drop table
    raw_keycrm.rejects, raw_keycrm.users, raw_keycrm.order_sources, raw_keycrm.order_statuses;
drop trigger note_changes on raw_keycrm.orders;
drop trigger drop_surplus_items on raw_keycrm.orders;
drop trigger keep_latest_item on raw_keycrm.order_items;
drop trigger keep_latest on raw_keycrm.orders;
drop function
    raw_keycrm.note_changes(), raw_keycrm.drop_surplus_items(), raw_keycrm.keep_latest_item(),
    raw_keycrm.keep_latest();
drop table raw_keycrm.order_changes;
alter table raw_keycrm.order_items
    drop column unreadable,
    drop column fetched_at,
    drop column _dlt_load_id,
    drop column _dlt_id;
alter table raw_keycrm.orders
    drop column parent_id,
    drop column source_uuid,
    drop column manager_id,
    drop column buyer_id,
    drop column payment_status,
    drop column total_discount,
    drop column shipping_price,
    drop column utm_source,
    drop column utm_medium,
    drop column utm_campaign,
    drop column utm_term,
    drop column utm_content,
    drop column item_count,
    drop column items_mark,
    drop column status_changed_at,
    drop column gone_seen_at,
    drop column unreadable,
    drop column _dlt_load_id,
    drop column _dlt_id;
comment on schema raw_keycrm is 'What KeyCRM answered: orders and their items.';
reset role;
drop schema raw_keycrm_staging;
"""


def upgrade() -> None:
    op.get_bind().exec_driver_sql(UP, execution_options={"no_parameters": True})


def downgrade() -> None:
    op.get_bind().exec_driver_sql(DOWN, execution_options={"no_parameters": True})
