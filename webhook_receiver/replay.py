"""Reads landed deliveries again, after a mistake in reading them was mended."""

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import date, datetime
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


@dataclass(frozen=True)
class ArchivedMonth:
    """Deliveries whose bodies are archived: of a project, received in a month of UTC.

    Attributes:
        source_system, project_id: The project.
        month: The first day of the month.
        deliveries: How many there are.
    """

    source_system: str
    project_id: str
    month: date
    deliveries: int


_FROM = """
from raw.deliveries
inner join settings.projects
    on
        deliveries.source_system = projects.source_system
        and deliveries.project_id = projects.project_id
"""

_SAID = """
inner join raw.delivery_bodies as said
    on
        deliveries.delivery_id = said.delivery_id
        and deliveries.received_at = said.received_at
"""

_CHOSEN = """
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

_COUNT = "select count(*)" + _FROM + _CHOSEN

_ARCHIVED = (
    """
select
    deliveries.source_system,
    deliveries.project_id,
    date_trunc('month', deliveries.received_at at time zone 'UTC')::date as month,
    count(*)
"""
    + _FROM
    + _CHOSEN
    + """
    and not exists (
        select from raw.delivery_bodies
        where
            delivery_bodies.delivery_id = deliveries.delivery_id
            and delivery_bodies.received_at = deliveries.received_at
    )
group by 1, 2, 3
order by 3, 1, 2
"""
)

_ROWS = (
    """
select
    deliveries.delivery_id,
    deliveries.sender,
    deliveries.project_id,
    deliveries.received_at,
    deliveries.check_ids,
    said.headers,
    said.body,
    projects.timezone
"""
    + _FROM
    + _SAID
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


def archived(choice: Choice) -> list[ArchivedMonth]:
    """Those that fit ``choice`` and whose bodies are not in the database.

    Raises:
        StagelineError: the database cannot be reached.
    """
    with connect("transformer") as session:
        rows = session.execute(_ARCHIVED, asdict(choice)).fetchall()
    return [ArchivedMonth(*row) for row in rows]


def archived_words(months: Sequence[ArchivedMonth]) -> str:
    """How many deliveries are archived, where they are from, and how their bodies come back."""
    first, *others = months
    count = sum(month.deliveries for month in months)
    subject = "The body of 1 delivery is" if count == 1 else f"The bodies of {count} deliveries are"
    more = f" and of {len(others)} more months" if others else ""
    return (
        f"{subject} archived, of {first.source_system}/{first.project_id}"
        f" in {first.month:%Y-%m}{more}. To have them back:"
        f" `stageline archive restore --project {shlex.quote(first.project_id)}"
        f" --month {first.month:%Y-%m}`."
    )


def replay(choice: Choice) -> Iterator[Replayed]:
    """Reads the deliveries that fit ``choice`` again, oldest first, in batches.

    What is archived is left out.

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
