"""One delivery on its way from the wire to ``raw.deliveries``."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID
from zoneinfo import ZoneInfo

from webhook_receiver.events import Parsed
from webhook_receiver.senders import SENDERS, delivery_id

#: Headers that are kept with a delivery. None of them is a secret.
KEPT_HEADERS = (
    "content-type",
    "content-encoding",
    "user-agent",
    "webhook-id",
    "webhook-timestamp",
    "x-hubspot-request-timestamp",
)


@dataclass(frozen=True, slots=True)
class Delivery:
    """What came over the wire, from a caller that is known.

    Attributes:
        sender: ``keycrm``, ``pipedrive``, ``zapier`` or ``hubspot``.
        project_id: The project that it was sent to.
        received_at: When its last byte came, by this machine's clock.
        check_ids: The ``settings.webhook_checks`` that it passed.
        headers: Those of `KEPT_HEADERS` that it had.
        body: As it was sent.
        time_zone: IANA name of the project's zone, in which its naive times are read.
    """

    sender: str
    project_id: str
    received_at: datetime
    check_ids: tuple[int, ...]
    headers: dict[str, str]
    body: bytes
    time_zone: str


@dataclass(frozen=True, slots=True)
class ReadDelivery:
    """A delivery, what it says, and the id that both give it."""

    delivery: Delivery
    parsed: Parsed
    delivery_id: UUID


def read(delivery: Delivery) -> ReadDelivery:
    """What ``delivery`` says; never fails, and gives the same for the same delivery each time."""
    sender = SENDERS[delivery.sender]
    parsed = sender.parse(
        delivery.body, delivery.headers, delivery.received_at, ZoneInfo(delivery.time_zone)
    )
    return ReadDelivery(
        delivery,
        parsed,
        delivery_id(
            delivery.sender,
            delivery.project_id,
            parsed.sender_delivery_id,
            sender.content(delivery.body),
        ),
    )
