"""Holds what is stored against what happened and what was acknowledged."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import psycopg

from tests.crash.ledger import Delivery

#: How many examples of a fault are told.
_EXAMPLES = 3


@dataclass(frozen=True)
class StoredEvent:
    """A row of ``raw.stage_events``, and the delivery that it names."""

    event: tuple[str, str, datetime]
    delivery_id: str


@dataclass(frozen=True)
class StoredOrder:
    """An order in ``raw_keycrm``: the numbers of the changes after which it was as stored.

    Attributes:
        number: By the order itself.
        item_numbers: By its items.
    """

    number: int
    item_numbers: frozenset[int]


@dataclass(frozen=True)
class Stored:
    """What the database holds of a project.

    Attributes:
        deliveries: Id and SHA-256 of each body, as the database works it out from its bytes.
        events: All stage events.
        asked: Order -> how many deliveries have asked for it in ``ops.follow_ups``.
        orders: Order -> what was fetched.
    """

    deliveries: Sequence[tuple[str, str]] = ()
    events: Sequence[StoredEvent] = ()
    asked: Mapping[int, int] = field(default_factory=dict)
    orders: Mapping[int, StoredOrder] = field(default_factory=dict)


class Faults:
    """What is wrong, with examples; true where there is anything."""

    def __init__(self) -> None:
        self._cases: Counter[str] = Counter()
        self._examples: defaultdict[str, list[str]] = defaultdict(list)

    def note(self, fault: str, example: object, cases: int = 1) -> None:
        """More cases of a fault, with one example of them."""
        self._cases[fault] += cases
        self._examples[fault].append(str(example))

    def count(self, fault: str) -> int:
        """How many cases there are."""
        return self._cases[fault]

    def lines(self) -> list[str]:
        """A line for each fault, for people."""
        return [
            f"{fault}: {cases}, such as {', '.join(self._examples[fault][:_EXAMPLES])}"
            for fault, cases in self._cases.items()
        ]

    def __bool__(self) -> bool:
        return self._cases.total() > 0


LOST = "acknowledged, but not stored"
ELSEWHERE = "acknowledged under an id that is not its own"
TWICE = "stored more than once"
NEVER_SENT = "a delivery that was never sent"
EVENT_MISSING = "a delivery without its event"
EVENT_TWICE = "an event more than once"
EVENT_NEVER_SENT = "an event of no stored delivery"
NOT_ASKED = "an order that was not asked for as often as deliveries spoke of it"
NOT_FETCHED = "an order that is not in raw_keycrm"
NOT_TRUE = "an order in raw_keycrm that is not as it was at the CRM after its last delivery"


def judge_deliveries(deliveries: Sequence[Delivery], stored: Stored, faults: Faults) -> None:
    """Adds to ``faults`` what is wrong with the deliveries and events of a project.

    Args:
        deliveries: All that was sent.
        stored: What the database holds.
        faults: Gets what is found.
    """
    by_id = dict(stored.deliveries)
    copies = Counter(digest for _, digest in stored.deliveries)
    events = Counter(found.event for found in stored.events)
    of_delivery = {found.event: found.delivery_id for found in stored.events}
    sent = {delivery.digest: delivery for delivery in deliveries}
    for digest, delivery in sent.items():
        if delivery.acknowledged_as is not None:
            if not copies[digest]:
                faults.note(LOST, delivery.number)
            elif by_id.get(delivery.acknowledged_as) != digest:
                faults.note(ELSEWHERE, delivery.number)
        if copies[digest] > 1:
            faults.note(TWICE, delivery.number)
        if events[delivery.event] > 1:
            faults.note(EVENT_TWICE, delivery.number)
    for delivery_id, digest in stored.deliveries:
        if digest not in sent:
            faults.note(NEVER_SENT, delivery_id)
        elif of_delivery.get(sent[digest].event) != delivery_id:
            faults.note(EVENT_MISSING, sent[digest].number)
    stored_events = {sent[digest].event for _, digest in stored.deliveries if digest in sent}
    for event in events.keys() - stored_events:
        faults.note(EVENT_NEVER_SENT, event)


def judge_follow_ups(
    deliveries: Sequence[Delivery], latest: Mapping[int, int], stored: Stored, faults: Faults
) -> None:
    """Adds to ``faults`` what is wrong with the follow-up work, once there is none left to do.

    Args:
        deliveries: All that was sent.
        latest: Order -> number of its last change. It may have stayed untold: then what is stored
            may be older, but not older than what was told.
        stored: What the database holds.
        faults: Gets what is found.
    """
    sent = {delivery.digest: delivery for delivery in deliveries}
    told = [sent[digest] for _, digest in stored.deliveries if digest in sent]
    last_told: dict[int, int] = {}
    for delivery in told:
        last_told[delivery.order_id] = max(delivery.number, last_told.get(delivery.order_id, 0))
    for order_id, times in Counter(delivery.order_id for delivery in told).items():
        if stored.asked.get(order_id, 0) != times:
            faults.note(NOT_ASKED, f"{order_id}: {stored.asked.get(order_id, 0)} of {times}")
        found = stored.orders.get(order_id)
        if found is None:
            faults.note(NOT_FETCHED, order_id)
        elif found.item_numbers != {found.number} or not (
            last_told[order_id] <= found.number <= latest[order_id]
        ):
            faults.note(NOT_TRUE, f"{order_id}: {found}, told {last_told[order_id]}")


def read_stored(session: psycopg.Connection[Any], project_id: str) -> Stored:
    """What the database holds of a project; as its owner."""
    return Stored(
        deliveries=session.execute(
            "select delivery_id::text, encode(sha256(body), 'hex') from raw.deliveries"
            " inner join raw.delivery_bodies using (delivery_id, received_at)"
            " where project_id = %s",
            [project_id],
        ).fetchall(),
        events=[
            StoredEvent((entity_id, stage_id, entered_at), delivery_id)
            for entity_id, stage_id, entered_at, delivery_id in session.execute(
                "select entity_id, stage_id, entered_at, delivery_id::text from raw.stage_events"
                " where project_id = %s",
                [project_id],
            )
        ],
        asked={
            int(order_id): requested
            for order_id, requested in session.execute(
                "select entity_id, requested from ops.follow_ups where project_id = %s",
                [project_id],
            )
        },
        orders={
            int(order_id): StoredOrder(int(number), frozenset(map(int, item_numbers)))
            for order_id, number, item_numbers in session.execute(
                """
                select order_id, grand_total, array_agg(distinct sku)
                from raw_keycrm.orders
                inner join raw_keycrm.order_items using (project_id, order_id)
                where project_id = %s
                group by order_id, grand_total
                """,
                [project_id],
            )
        },
    )


def is_worked_off(session: psycopg.Connection[Any]) -> bool:
    """Whether every delivery was planned for, and every follow-up answered."""
    row = session.execute(
        """
        select
            not exists (
                select from raw.deliveries
                where not pg_visible_in_snapshot(
                    landed_xid, (select planned from ops.follow_up_position)
                )
            )
            and not exists (select from ops.follow_ups where answered < requested)
        """
    ).fetchone()
    return row is not None and bool(row[0])
