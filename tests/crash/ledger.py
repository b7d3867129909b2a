"""What happened at the CRM, what was sent of it, and what was acknowledged."""

import json
import random
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256

from tests.fakes.keycrm import FakeKeycrm

#: When the first change happened; each later one a second after the one before.
BEGIN = datetime(2025, 1, 1, tzinfo=UTC)

#: How far back a delivery counts as just sent, so that another sender may still be sending it.
_JUST_SENT = 16


@dataclass(eq=False)
class Delivery:
    """A change of an order, and the webhook that tells of it.

    Attributes:
        number: From 1, in the order in which the changes happened; told by nothing else.
        order_id: The order that went to another stage.
        body: The webhook, the same in every attempt.
        acknowledged_as: The id that its sender was told with the first 200; None before.
    """

    number: int
    order_id: int
    body: bytes
    acknowledged_as: str | None = None

    @property
    def stage_id(self) -> int:
        """The stage that the order went to."""
        return self.number % 30 + 1

    @property
    def entered_at(self) -> datetime:
        """When it did."""
        return BEGIN + timedelta(seconds=self.number)

    @property
    def event(self) -> tuple[str, str, datetime]:
        """Order, stage and instant, as ``raw.stage_events`` has them: no other delivery's."""
        return str(self.order_id), str(self.stage_id), self.entered_at

    @property
    def digest(self) -> str:
        """SHA-256 of the body."""
        return sha256(self.body).hexdigest()


class Ledger:
    """All deliveries of a project since its beginning. For several threads at once.

    Args:
        crm: Its orders change with each new delivery; it need have no other ones.
        orders: How many orders there are.
    """

    def __init__(self, crm: FakeKeycrm, orders: int = 40) -> None:
        self._crm = crm
        self._orders = [crm.add_order() for _ in range(orders)]
        self._deliveries: list[Delivery] = []
        self._lock = threading.Lock()

    def deliveries(self, since: int = 0) -> Sequence[Delivery]:
        """The deliveries so far, without the first ``since``."""
        with self._lock:
            return self._deliveries[since:]

    def new(self, chance: random.Random) -> Delivery:
        """An order changes; gives what is to be sent of it."""
        with self._lock:
            order_id = chance.choice(self._orders)
            delivery = Delivery(len(self._deliveries) + 1, order_id, b"")
            delivery.body = _body(delivery, chance)
            self._deliveries.append(delivery)
            # The number stands in the order and in each of its items: a mixture of two is seen.
            order = self._crm.orders[order_id]
            self._crm.orders[order_id] = {
                **order,
                "status_id": delivery.stage_id,
                "grand_total": delivery.number,
                "products": [
                    {**product, "sku": str(delivery.number)} for product in order["products"]
                ],
            }
        return delivery

    def again(self, chance: random.Random) -> Delivery | None:
        """One that was sent before, a moment or long ago; None where there is none."""
        with self._lock:
            last = len(self._deliveries)
            if not last:
                return None
            first = max(last - _JUST_SENT, 0) if chance.random() < 0.5 else 0
            return self._deliveries[chance.randrange(first, last)]

    def latest(self) -> dict[int, int]:
        """Order -> number of its last change."""
        return {delivery.order_id: delivery.number for delivery in self.deliveries()}


def _body(delivery: Delivery, chance: random.Random) -> bytes:
    moment = delivery.entered_at.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    context = {
        "id": delivery.order_id,
        "source_id": 7,
        "status_group_id": delivery.stage_id % 5 + 1,
        "status_id": delivery.stage_id,
        "status_changed_at": moment,
        "grand_total": delivery.number,
        "manager_comment": "a" * chance.randrange(1500),
        "created_at": BEGIN.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "updated_at": moment,
        "deleted_at": None,
    }
    return json.dumps({"event": "order.change_order_status", "context": context}).encode()
