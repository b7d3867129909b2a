"""Reads landed deliveries again, after a mistake in reading them was mended."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from stageline.database import connect
from webhook_receiver.delivery import Delivery, ReadDelivery, read
from webhook_receiver.landing import BATCH
from webhook_receiver.raw_tables import insert_replayed


@dataclass(frozen=True)
class Choice:
    """Which deliveries; all that fit every part that is given.

    Attributes:
        unparsed: Only those of which some part still gives no events.
        delivery_ids, sender, project_id: Only these, or of these.
        since, until: When they were received: from, inclusive, and until, exclusive.
    """

    unparsed: bool = False
    delivery_ids: list[UUID] | None = None
    sender: str | None = None
    project_id: str | None = None
    since: datetime | None = None
    until: datetime | None = None


@dataclass(frozen=True)
class Replayed:
    """What a batch of a replay brought.

    Attributes:
        deliveries: How many were read again.
        unparsed: How many of them still have a part that gives no events.
        stage_events: How many events are new.
    """

    deliveries: int
    unparsed: int
    stage_events: int


_CHOSEN = """
from raw.deliveries
inner join settings.projects
    on
        deliveries.source_system = projects.source_system
        and deliveries.project_id = projects.project_id
where
    (
        not %(unparsed)s
        or deliveries.delivery_id in (select delivery_id from raw.unparsed_deliveries)
    )
    and (
        %(delivery_ids)s::uuid[] is null or deliveries.delivery_id = any(%(delivery_ids)s::uuid[])
    )
    and deliveries.sender = coalesce(%(sender)s, deliveries.sender)
    and deliveries.project_id = coalesce(%(project_id)s, deliveries.project_id)
    and deliveries.received_at >= coalesce(%(since)s::timestamptz, '-infinity')
    and deliveries.received_at < coalesce(%(until)s::timestamptz, 'infinity')
"""

_COUNT = "select count(*)" + _CHOSEN

_ROWS = (
    """
select
    deliveries.delivery_id,
    deliveries.sender,
    deliveries.project_id,
    deliveries.received_at,
    deliveries.check_ids,
    deliveries.headers,
    deliveries.body,
    projects.timezone
"""
    + _CHOSEN
    + "order by deliveries.received_at, deliveries.delivery_id"
)


def count(choice: Choice) -> int:
    """How many deliveries fit ``choice``.

    Raises:
        StagelineError: the database cannot be reached.
    """
    with connect("transformer") as session:
        rows = session.execute(_COUNT, asdict(choice)).fetchall()
    return int(rows[0][0])


def replay(choice: Choice) -> Iterator[Replayed]:
    """Reads the deliveries that fit ``choice`` again, oldest first, in batches.

    Only the role of the models may read what a delivery said, and only the receiver's may write
    events, so this uses both. Events that are there stay as they are: doing it twice changes
    nothing.

    Yields:
        What each batch brought.

    Raises:
        StagelineError: the database cannot be reached.
    """
    with (
        connect("transformer") as reading,
        connect("receiver", autocommit=True) as writing,
        reading.cursor(name="replay") as cursor,
    ):
        cursor.execute(_ROWS, asdict(choice))
        while rows := cursor.fetchmany(BATCH):
            deliveries = [_read_again(*row) for row in rows]
            yield Replayed(
                len(deliveries),
                sum(each.parsed.unparsed_reason is not None for each in deliveries),
                insert_replayed(writing, deliveries),
            )


def _read_again(delivery_id: UUID, *columns: Any) -> ReadDelivery:
    sender, project_id, received_at, check_ids, headers, body, time_zone = columns
    found = read(
        Delivery(sender, project_id, received_at, tuple(check_ids), headers, bytes(body), time_zone)
    )
    # It keeps the id under which it landed, also where more of it can be read by now.
    return ReadDelivery(found.delivery, found.parsed, delivery_id)
