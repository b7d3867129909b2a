"""What the receiver lands, who may call it, and the follow-up work that landed rows ask for.

Tables in ``raw`` are only ever added to. Identities hold no sequence: the same delivery, or the
same event, is the same row whichever process writes it and however often.
"""

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

UP = """
create table settings.webhook_checks (
    check_id integer generated always as identity primary key,
    sender text not null check (sender in ('keycrm', 'pipedrive', 'zapier', 'hubspot')),
    source_system text not null generated always as (
        case sender when 'zapier' then 'pipedrive' else sender end
    ) stored,
    project_id text not null,
    kind text not null
        check (kind in ('hmac', 'hubspot', 'basic', 'token', 'address', 'user_agent')),
    secret_encrypted text,
    allowed text,
    label text,
    valid_from timestamptz not null default now(),
    valid_to timestamptz,
    created_at timestamptz not null default now(),
    foreign key (source_system, project_id) references settings.projects,
    constraint webhook_checks_secret_or_allowed check (
        case when kind in ('address', 'user_agent')
            then allowed <> '' and allowed is not null and secret_encrypted is null
            else secret_encrypted is not null and allowed is null
        end
    ),
    constraint webhook_checks_valid check (valid_to > valid_from)
);
comment on table settings.webhook_checks is
    'One row per secret, address range or user agent by which a sender of a project is known.';
comment on column settings.webhook_checks.secret_encrypted is
    'Fernet token under STAGELINE_SECRET_KEY.';
comment on column settings.webhook_checks.allowed is
    'Address range in CIDR notation, or the text that the user agent has to begin with.';
revoke select on settings.webhook_checks from stageline_transformer, stageline_jobs;
grant usage on schema settings to stageline_receiver;
grant select on settings.webhook_checks to stageline_receiver;
grant select on settings.projects to stageline_receiver;

create table settings.api_accounts (
    source_system text not null,
    project_id text not null,
    base_url text not null check (base_url ~ '^https?://'),
    token_encrypted text not null,
    updated_at timestamptz not null default now(),
    primary key (source_system, project_id),
    foreign key (source_system, project_id) references settings.projects
);
comment on table settings.api_accounts is
    'One row per project whose CRM is asked for more: where its API is, and with which token.';
comment on column settings.api_accounts.token_encrypted is
    'Fernet token under STAGELINE_SECRET_KEY.';
revoke select on settings.api_accounts from stageline_transformer;
grant select on settings.api_accounts to stageline_loader;

create table raw.deliveries (
    delivery_id uuid primary key,
    sender text not null,
    source_system text not null,
    project_id text not null,
    sender_delivery_id text,
    received_at timestamptz not null,
    landed_at timestamptz not null default clock_timestamp(),
    landed_xid xid8 not null default pg_current_xact_id(),
    check_ids integer[] not null,
    headers jsonb not null,
    body bytea not null,
    body_sha256 bytea not null check (octet_length(body_sha256) = 32),
    entity_type text,
    entity_ids text[] not null,
    unparsed_reason text
);
comment on table raw.deliveries is
    'One row per authentic delivery of a sender, as it came; a repeated one is the same row.';
comment on column raw.deliveries.delivery_id is
    'First half of SHA-256 over sender, project, sender_delivery_id and body (retry counter left'
    ' out).';
comment on column raw.deliveries.received_at is 'When it reached the receiver, by its clock.';
comment on column raw.deliveries.landed_at is
    'When it was written here; later than received_at where it waited in a spool.';
comment on column raw.deliveries.landed_xid is
    'Transaction that wrote it: all rows below the xmin of a snapshot are there for good.';
comment on column raw.deliveries.check_ids is 'The settings.webhook_checks that it passed.';
comment on column raw.deliveries.entity_ids is 'The deals or orders that it speaks of.';
comment on column raw.deliveries.unparsed_reason is
    'Why it, or a part of it, gave no events when it landed; null = parsed whole.';
create index deliveries_landed on raw.deliveries (landed_xid);
create index deliveries_received on raw.deliveries using brin (received_at);
create index deliveries_sender_id on raw.deliveries (sender, project_id, sender_delivery_id)
    where sender_delivery_id is not null;
create index deliveries_unparsed on raw.deliveries (received_at) where unparsed_reason is not null;

create table raw.stage_events (
    source_system text not null,
    project_id text not null,
    entity_type text not null,
    entity_id text not null,
    pipeline_id text,
    stage_id text not null,
    stage_group_id text,
    previous_stage_id text,
    entered_at timestamptz not null,
    entity_created_at timestamptz,
    delivery_id uuid not null,
    ingested_at timestamptz not null default clock_timestamp(),
    ingested_xid xid8 not null default pg_current_xact_id(),
    primary key (source_system, project_id, entity_type, entity_id, stage_id, entered_at)
);
comment on table raw.stage_events is 'One row per entry of a deal or order into a stage.';
comment on column raw.stage_events.entity_created_at is
    'When the deal or order was created, where the delivery says so.';
create index stage_events_ingested on raw.stage_events (ingested_xid);

create table raw.value_changes (
    source_system text not null,
    project_id text not null,
    entity_type text not null,
    entity_id text not null,
    field text not null,
    old_value text,
    new_value text,
    changed_at timestamptz not null,
    delivery_id uuid not null,
    ingested_at timestamptz not null default clock_timestamp(),
    ingested_xid xid8 not null default pg_current_xact_id(),
    constraint value_changes_key unique nulls not distinct (
        source_system, project_id, entity_type, entity_id, field, changed_at, new_value
    )
);
comment on table raw.value_changes is
    'One row per change of a value of a deal or order that a delivery told of.';
comment on column raw.value_changes.field is
    'amount, currency, probability, expected_close_date, owner, status or payment_status.';
comment on column raw.value_changes.old_value is 'As the sender wrote it; null where unknown.';
create index value_changes_ingested on raw.value_changes (ingested_xid);

create table raw.lifecycle_events (
    source_system text not null,
    project_id text not null,
    entity_type text not null,
    entity_id text not null,
    event text not null check (event in ('created', 'deleted', 'restored', 'merged')),
    occurred_at timestamptz not null,
    merged_into text,
    delivery_id uuid not null,
    ingested_at timestamptz not null default clock_timestamp(),
    ingested_xid xid8 not null default pg_current_xact_id(),
    primary key (source_system, project_id, entity_type, entity_id, event, occurred_at)
);
comment on table raw.lifecycle_events is
    'One row per creation, deletion, restoration or merge of a deal or order.';
create index lifecycle_events_ingested on raw.lifecycle_events (ingested_xid);

create table raw.replays (
    delivery_id uuid not null,
    replayed_at timestamptz not null default clock_timestamp(),
    landed_xid xid8 not null default pg_current_xact_id(),
    entity_type text,
    entity_ids text[] not null,
    unparsed_reason text,
    primary key (delivery_id, replayed_at)
);
comment on table raw.replays is
    'One row per time that a landed delivery was read again, with what came of it.';
create index replays_landed on raw.replays (landed_xid);

create view raw.unparsed_deliveries as
select
    deliveries.delivery_id,
    deliveries.sender,
    deliveries.project_id,
    deliveries.received_at,
    octet_length(deliveries.body) as body_bytes,
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

create view raw.conflicting_deliveries as
select
    deliveries.delivery_id,
    deliveries.sender,
    deliveries.project_id,
    deliveries.received_at,
    deliveries.sender_delivery_id
from raw.deliveries
where
    deliveries.sender_delivery_id is not null
    and exists (
        select from raw.deliveries as other
        where
            other.sender = deliveries.sender
            and other.project_id = deliveries.project_id
            and other.sender_delivery_id = deliveries.sender_delivery_id
            and other.delivery_id <> deliveries.delivery_id
    );
comment on view raw.conflicting_deliveries is
    'One row per delivery that shares its id with another one of different content.';

create table raw.refusals (
    refusal_id bigint generated always as identity primary key,
    refused_at timestamptz not null,
    sender text,
    project_id text,
    client_address text,
    body_bytes bigint,
    body_sha256 bytea,
    reason text not null
);
comment on table raw.refusals is
    'One row per request that was refused: who, when, why; never what it said.';
create index refusals_refused on raw.refusals using brin (refused_at);

grant insert on
    raw.deliveries, raw.stage_events, raw.value_changes, raw.lifecycle_events, raw.replays,
    raw.refusals
to stageline_receiver;
-- What `returning` and the look for a conflict need; never a body.
grant select (delivery_id, sender, source_system, project_id, sender_delivery_id) on raw.deliveries
to stageline_receiver;
-- Follow-up work is planned from what a delivery speaks of, without its body.
grant select (
    delivery_id, sender, source_system, project_id, sender_delivery_id, received_at, landed_at,
    landed_xid, check_ids, entity_type, entity_ids, unparsed_reason
) on raw.deliveries to stageline_jobs;
grant select on
    raw.stage_events, raw.value_changes, raw.lifecycle_events, raw.replays, raw.refusals,
    raw.unparsed_deliveries, raw.conflicting_deliveries
to stageline_jobs;
revoke select on raw.refusals from stageline_transformer;  -- no model reads it

create table ops.follow_ups (
    kind text not null check (kind in ('pipedrive_deal', 'keycrm_order')),
    source_system text not null,
    project_id text not null,
    entity_id text not null,
    delivery_id uuid not null,
    requested bigint not null default 1,
    answered bigint not null default 0,
    requested_at timestamptz not null default now(),
    answered_at timestamptz,
    due_at timestamptz,
    attempts integer not null default 0,
    claim bigint not null default 0,
    claimed_by text,
    claimed_until timestamptz,
    last_error text,
    gave_up_at timestamptz,
    primary key (kind, source_system, project_id, entity_id),
    constraint follow_ups_none_is_forgotten check (
        answered >= requested
        or due_at is not null
        or claimed_until is not null
        or gave_up_at is not null
    )
);
comment on table ops.follow_ups is
    'One row per deal or order that a CRM is asked about because of a delivery.';
comment on column ops.follow_ups.delivery_id is 'The latest delivery that asked for it.';
comment on column ops.follow_ups.requested is 'How many deliveries have asked.';
comment on column ops.follow_ups.answered is
    'How many of them the last answer covers; it is due while this is less than requested.';
comment on column ops.follow_ups.due_at is
    'When it is to be asked next; null = nothing has asked for it since it was last claimed.';
comment on column ops.follow_ups.attempts is
    'Attempts since the last answer; waiting for the budget of the CRM is none.';
comment on column ops.follow_ups.claim is
    'Number of the last claim: who holds an older one may not finish it.';
comment on column ops.follow_ups.claimed_until is
    'Until when its worker has to be done; another one may take it after that.';
create index follow_ups_due
    on ops.follow_ups (source_system, project_id, coalesce(claimed_until, due_at))
    where answered < requested and gave_up_at is null;
create index follow_ups_claimed on ops.follow_ups (claimed_until)
    where claimed_until is not null;
create index follow_ups_gave_up on ops.follow_ups (gave_up_at) where gave_up_at is not null;

create table ops.follow_up_position (
    is_only_row boolean primary key default true check (is_only_row),
    planned pg_snapshot not null
);
comment on table ops.follow_up_position is
    'One row: follow-up work is planned for all deliveries whose transactions this snapshot sees.';
insert into ops.follow_up_position (planned) values ('1:1:');

create table ops.api_pace (
    source_system text not null,
    project_id text not null,
    next_at timestamptz not null default '-infinity',
    blocked_until timestamptz not null default '-infinity',
    blocked_reason text,
    primary key (source_system, project_id)
);
comment on table ops.api_pace is
    'One row per account of a CRM: when its next call may go out, whichever process makes it.';

create schema raw_pipedrive authorization stageline_loader;
create schema raw_keycrm authorization stageline_loader;

set local role stageline_loader;
comment on schema raw_pipedrive is 'What Pipedrive answered: deals and their changes.';
comment on schema raw_keycrm is 'What KeyCRM answered: orders and their items.';
grant usage on schema raw_pipedrive, raw_keycrm to stageline_transformer;
alter default privileges in schema raw_pipedrive grant select on tables to stageline_transformer;
alter default privileges in schema raw_keycrm grant select on tables to stageline_transformer;

create table raw_pipedrive.deals (
    project_id text not null,
    deal_id text not null,
    pipeline_id text,
    stage_id text,
    status text,
    is_deleted boolean,
    added_at timestamptz,
    is_gone boolean not null default false,
    fetched_at timestamptz not null,
    fetched_xid xid8 not null default pg_current_xact_id(),
    primary key (project_id, deal_id)
);
comment on table raw_pipedrive.deals is 'One row per deal, as it was when last asked for.';
comment on column raw_pipedrive.deals.is_deleted is
    'What Pipedrive says of a deal that it still knows; deleted ones go for good after 30 days.';
comment on column raw_pipedrive.deals.is_gone is 'Whether Pipedrive no longer knows it (404).';
comment on column raw_pipedrive.deals.fetched_at is
    'When the question was asked whose answer last changed this row.';
create index deals_fetched on raw_pipedrive.deals (fetched_xid);

create table raw_pipedrive.deal_changes (
    project_id text not null,
    deal_id text not null,
    change_id text not null,
    field_key text not null,
    old_value text,
    new_value text,
    old_label text,
    new_label text,
    user_id text,
    change_source text,
    changed_at timestamptz not null,
    fetched_at timestamptz not null,
    fetched_xid xid8 not null default pg_current_xact_id(),
    primary key (project_id, deal_id, change_id)
);
comment on table raw_pipedrive.deal_changes is
    'One row per change of a field of a deal (/flow, dealChange); facts, never rewritten.';
create index deal_changes_fetched on raw_pipedrive.deal_changes (fetched_xid);

create table raw_keycrm.orders (
    project_id text not null,
    order_id text not null,
    status_id text,
    status_group_id text,
    source_id text,
    grand_total numeric,
    created_at timestamptz,
    ordered_at timestamptz,
    updated_at timestamptz,
    closed_at timestamptz,
    is_gone boolean not null default false,
    fetched_at timestamptz not null,
    fetched_xid xid8 not null default pg_current_xact_id(),
    primary key (project_id, order_id)
);
comment on table raw_keycrm.orders is 'One row per order, as it was when last asked for.';
comment on column raw_keycrm.orders.is_gone is 'Whether KeyCRM no longer knows it (404).';
comment on column raw_keycrm.orders.fetched_at is
    'When the question was asked whose answer last changed this row or its items.';
create index orders_fetched on raw_keycrm.orders (fetched_xid);

create table raw_keycrm.order_items (
    project_id text not null,
    order_id text not null,
    position integer not null,
    line_id text,
    product_id text,
    offer_id text,
    sku text,
    name text,
    quantity numeric,
    price_sold numeric,
    purchased_price numeric,
    primary key (project_id, order_id, position)
);
comment on table raw_keycrm.order_items is
    'One row per line of an order, as it was when last asked for.';
comment on column raw_keycrm.order_items.position is 'From 1, in the order of the answer.';

reset role;
"""

DOWN = """
drop table raw_keycrm.order_items, raw_keycrm.orders;
drop table raw_pipedrive.deal_changes, raw_pipedrive.deals;
drop schema raw_keycrm, raw_pipedrive;
drop table ops.api_pace, ops.follow_up_position, ops.follow_ups;
drop view raw.conflicting_deliveries, raw.unparsed_deliveries;
drop table
    raw.refusals, raw.replays, raw.lifecycle_events, raw.value_changes, raw.stage_events,
    raw.deliveries;
drop table settings.api_accounts, settings.webhook_checks;
revoke select on settings.projects from stageline_receiver;
revoke usage on schema settings from stageline_receiver;
"""


def upgrade() -> None:
    op.get_bind().exec_driver_sql(UP, execution_options={"no_parameters": True})


def downgrade() -> None:
    op.get_bind().exec_driver_sql(DOWN, execution_options={"no_parameters": True})
