"""Writes deliveries and their events into schema ``raw``."""

from collections.abc import Sequence
from dataclasses import replace
from enum import Enum
from typing import Any
from uuid import UUID

import orjson
import psycopg

from stageline.progress import log
from webhook_receiver.delivery import ReadDelivery
from webhook_receiver.events import Parsed
from webhook_receiver.senders import SENDERS
from webhook_receiver.session import why

_LANDED = """
with

came as (
    -- Of one that comes twice in a batch, the first; rows in the order of their keys.
    select distinct on (given.delivery_id) given.*
    from jsonb_to_recordset($1::jsonb) as given (
        place integer, delivery_id uuid, sender text, source_system text, project_id text,
        sender_delivery_id text, received_at timestamptz, check_ids integer[], headers jsonb,
        entity_type text, entity_ids text[], unparsed_reason text
    )
    order by given.delivery_id, given.place
),

landed as (
    insert into raw.deliveries (
        delivery_id, sender, source_system, project_id, sender_delivery_id, received_at, check_ids,
        body_bytes, body_sha256, entity_type, entity_ids, unparsed_reason
    )
    select
        delivery_id,
        sender,
        source_system,
        project_id,
        sender_delivery_id,
        received_at,
        check_ids,
        octet_length(($5::bytea[])[place]),
        sha256(($5::bytea[])[place]),
        entity_type,
        entity_ids,
        unparsed_reason
    from came
    order by delivery_id
    on conflict do nothing
    returning delivery_id, sender, source_system, project_id, sender_delivery_id
),

bodies as (
    insert into raw.delivery_bodies (delivery_id, received_at, headers, body)
    select
        came.delivery_id,
        came.received_at,
        came.headers,
        ($5::bytea[])[came.place]
    from came
    inner join landed on came.delivery_id = landed.delivery_id
),
"""

#: The events of what ``landed``.
_EVENTS = """
stage_events as (
    insert into raw.stage_events (
        source_system, project_id, entity_type, entity_id, pipeline_id, stage_id, stage_group_id,
        previous_stage_id, entered_at, entity_created_at, delivery_id
    )
    select
        landed.source_system,
        landed.project_id,
        given.entity_type,
        given.entity_id,
        given.pipeline_id,
        given.stage_id,
        given.stage_group_id,
        given.previous_stage_id,
        given.entered_at,
        given.entity_created_at,
        landed.delivery_id
    from jsonb_to_recordset($2::jsonb) as given (
        delivery_id uuid, entity_type text, entity_id text, pipeline_id text, stage_id text,
        stage_group_id text, previous_stage_id text, entered_at timestamptz,
        entity_created_at timestamptz
    )
    inner join landed on given.delivery_id = landed.delivery_id
    order by
        landed.source_system, landed.project_id, given.entity_type, given.entity_id,
        given.stage_id, given.entered_at
    on conflict do nothing
    returning 1
),

value_changes as (
    insert into raw.value_changes (
        source_system, project_id, entity_type, entity_id, field, old_value, new_value, changed_at,
        delivery_id
    )
    select
        landed.source_system,
        landed.project_id,
        given.entity_type,
        given.entity_id,
        given.field,
        given.old_value,
        given.new_value,
        given.changed_at,
        landed.delivery_id
    from jsonb_to_recordset($3::jsonb) as given (
        delivery_id uuid, entity_type text, entity_id text, field text, old_value text,
        new_value text, changed_at timestamptz
    )
    inner join landed on given.delivery_id = landed.delivery_id
    order by
        landed.source_system, landed.project_id, given.entity_type, given.entity_id, given.field,
        given.changed_at, given.new_value
    on conflict do nothing
),

lifecycle_events as (
    insert into raw.lifecycle_events (
        source_system, project_id, entity_type, entity_id, event, occurred_at, merged_into,
        delivery_id
    )
    select
        landed.source_system,
        landed.project_id,
        given.entity_type,
        given.entity_id,
        given.event,
        given.occurred_at,
        given.merged_into,
        landed.delivery_id
    from jsonb_to_recordset($4::jsonb) as given (
        delivery_id uuid, entity_type text, entity_id text, event text, occurred_at timestamptz,
        merged_into text
    )
    inner join landed on given.delivery_id = landed.delivery_id
    order by
        landed.source_system, landed.project_id, given.entity_type, given.entity_id, given.event,
        given.occurred_at
    on conflict do nothing
)
"""

_OUTCOMES = """
select
    landed.delivery_id,
    landed.sender_delivery_id is not null and exists (
        select from raw.deliveries as earlier
        where
            earlier.sender = landed.sender
            and earlier.project_id = landed.project_id
            and earlier.sender_delivery_id = landed.sender_delivery_id
            and earlier.delivery_id <> landed.delivery_id
    ) as is_conflict
from landed
"""

#: One statement, so one transaction and one round trip. Rows are written in the order of their
#: keys: two receivers that bring the same events wait for each other, and do not deadlock.
_INSERT = _LANDED + _EVENTS + _OUTCOMES

_REPLAYED = """
with

landed as (
    select
        given.delivery_id,
        given.source_system,
        given.project_id
    from jsonb_to_recordset($1::jsonb) as given (
        delivery_id uuid, source_system text, project_id text
    )
),

replayed as (
    insert into raw.replays (delivery_id, entity_type, entity_ids, unparsed_reason)
    select
        given.delivery_id,
        given.entity_type,
        given.entity_ids,
        given.unparsed_reason
    from jsonb_to_recordset($1::jsonb) as given (
        delivery_id uuid, entity_type text, entity_ids text[], unparsed_reason text
    )
),
"""

_COUNT = "select count(*) from stage_events"

_REPLAY = _REPLAYED + _EVENTS + _COUNT


#: What the database, or its driver, says of a row that it does not take, whoever brings it.
_REFUSED = (
    psycopg.DataError,
    psycopg.IntegrityError,
    psycopg.errors.ProgramLimitExceeded,
    orjson.JSONEncodeError,  # a text that is no Unicode
)


class Outcome(Enum):
    """What became of a delivery; every one of these is safe on a disk."""

    STORED = "stored"
    CONFLICT = "conflict"
    DUPLICATE = "duplicate"
    SPOOLED = "spooled"


def insert(
    session: psycopg.Connection[Any], deliveries: Sequence[ReadDelivery]
) -> dict[UUID, Outcome]:
    """Writes ``deliveries`` and their events in one transaction of their own.

    Returns:
        What became of each id; one that was there before is a duplicate and changes nothing.

    Raises:
        psycopg.Error: nothing of them was written, or the connection was lost before the answer.
    """
    bodies = [each.delivery.body for each in deliveries]
    parameters = [*_parameters(deliveries), bodies]
    rows = psycopg.RawCursor(session).execute(_INSERT, parameters, prepare=True).fetchall()
    outcomes = {each.delivery_id: Outcome.DUPLICATE for each in deliveries}
    for delivery_id, is_conflict in rows:
        outcomes[delivery_id] = Outcome.CONFLICT if is_conflict else Outcome.STORED
    return outcomes


def insert_replayed(session: psycopg.Connection[Any], deliveries: Sequence[ReadDelivery]) -> int:
    """Writes what landed deliveries say by now, and that they were read again, in one transaction.

    Returns:
        How many stage events are new; those that are there already stay as they are.

    Raises:
        psycopg.Error: nothing was written.
    """
    rows = psycopg.RawCursor(session).execute(_REPLAY, _parameters(deliveries)).fetchall()
    return int(rows[0][0])


def _parameters(deliveries: Sequence[ReadDelivery]) -> list[str]:
    """The deliveries and their events as $1 to $4 of the statements above, in JSON."""
    rows: list[dict[str, Any]] = []
    stage_events: list[dict[str, Any]] = []
    value_changes: list[dict[str, Any]] = []
    lifecycle_events: list[dict[str, Any]] = []
    for place, each in enumerate(deliveries, start=1):
        delivery, parsed, key = each.delivery, each.parsed, each.delivery_id
        rows.append(
            {
                "place": place,
                "delivery_id": key,
                "sender": delivery.sender,
                "source_system": SENDERS[delivery.sender].source_system,
                "project_id": delivery.project_id,
                "sender_delivery_id": parsed.sender_delivery_id,
                "received_at": delivery.received_at,
                "check_ids": delivery.check_ids,
                "headers": delivery.headers,
                "entity_type": parsed.entity_type,
                "entity_ids": parsed.entity_ids,
                "unparsed_reason": parsed.unparsed_reason,
            }
        )
        for events, found in (
            (stage_events, parsed.stage_events),
            (value_changes, parsed.value_changes),
            (lifecycle_events, parsed.lifecycle_events),
        ):
            events.extend({"delivery_id": key, **event._asdict()} for event in found)
    return [
        orjson.dumps(table).decode()
        for table in (rows, stage_events, value_changes, lifecycle_events)
    ]


def written(
    session: psycopg.Connection[Any], deliveries: Sequence[ReadDelivery]
) -> dict[UUID, Outcome]:
    """As `insert`, but a delivery that the database refuses fails alone, and is kept as unparsed.

    Raises:
        psycopg.Error: the database is away, or lacks what it needs; nothing of a batch that is one
            transaction was written.
    """
    try:
        return insert(session, deliveries)
    except (psycopg.errors.DeadlockDetected, psycopg.errors.SerializationFailure):
        return insert(session, deliveries)
    except _REFUSED as error:
        if len(deliveries) > 1:
            outcomes: dict[UUID, Outcome] = {}
            for each in deliveries:
                outcomes |= written(session, [each])
            return outcomes
        return _written_without_events(session, deliveries[0], why(error))


def _written_without_events(
    session: psycopg.Connection[Any], delivery: ReadDelivery, refusal: str
) -> dict[UUID, Outcome]:
    reason = f"its events were refused: {refusal}"
    log().error("kept unparsed", delivery_id=str(delivery.delivery_id), reason=reason)
    parsed = delivery.parsed
    about = Parsed(
        parsed.sender_delivery_id, parsed.entity_type, parsed.entity_ids, unparsed_reason=reason
    )
    try:
        return insert(session, [replace(delivery, parsed=about)])
    except _REFUSED:  # by what it is about, then
        return insert(session, [replace(delivery, parsed=Parsed(unparsed_reason=reason))])
