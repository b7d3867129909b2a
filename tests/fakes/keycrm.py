"""KeyCRM's API as contract keycrm describes it: orders with their items."""

import random
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from tests.fakes.crm_server import Call, CrmServer, Limit, Reply

#: What KeyCRM allows (contract 2.1).
USUAL_LIMIT = Limit(60, 60.0)


class FakeKeycrm(CrmServer):
    """A fake KeyCRM account.

    Attributes:
        orders: The truth, by id: orders as the API gives them, with their products.
    """

    def __init__(self, seed: int = 1, *, limit: Limit | None = USUAL_LIMIT) -> None:
        super().__init__(limit)
        self.orders: dict[int, dict[str, Any]] = {}
        self._random = random.Random(seed)  # noqa: S311 - no secret

    @property
    def base_url(self) -> str:
        return f"{self.url}/v1"

    def add_order(self, items: int = 2) -> int:
        """An order with so many lines; gives its id."""
        order_id = len(self.orders) + 4001
        created_at = datetime(2026, 2, 1, tzinfo=UTC) + timedelta(
            seconds=self._random.randrange(5_000_000)
        )
        self.orders[order_id] = {
            "id": order_id,
            "parent_id": None,
            "source_id": 7,
            "status_id": self._random.choice([1, 12, 20]),
            "status_group_id": self._random.choice([1, 2, 3]),
            "grand_total": self._money(),
            "manager_comment": "call back",
            # Both forms of a time that are seen in answers.
            "created_at": created_at.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            "ordered_at": created_at.strftime("%Y-%m-%d %H:%M:%S"),
            "updated_at": None,
            "closed_at": None,
            "products": [self.make_product() for _ in range(items)],
            "buyer": {"id": 910, "full_name": "Olena K.", "phone": "+380501112233"},
        }
        return order_id

    def make_product(self) -> dict[str, Any]:
        """A line of an order, of the catalogue or of free text, with or without an id."""
        number = self._random.randrange(1, 100)
        product: dict[str, Any] = {
            "name": f"Kiosk {number}",
            "sku": f"K-{number}",
            "price": self._money(),
            "price_sold": self._money(),
            "purchased_price": self._random.choice([None, 0, "12.50"]),
            "quantity": self._random.choice([1, 2, "3", 0.5, "1.5"]),
            "properties": [],
        }
        if self._random.random() < 0.5:
            product["id"] = self._random.randrange(10_000, 99_999)
        if self._random.random() < 0.7:
            product["offer"] = {"id": number + 200, "product_id": number + 100, "sku": None}
        return product

    def is_authentic(self, call: Call) -> bool:
        return call.headers.get("authorization") == f"Bearer {self.token}"

    def unauthentic(self) -> Reply:
        return Reply(401, {"message": "Unauthenticated."})

    def over_limit(self, wait: float) -> Reply:
        return Reply(429, {"message": "Too Many Attempts."}, {"Retry-After": str(int(wait) + 1)})

    def answer(self, call: Call) -> Reply:
        match call.path.strip("/").split("/"):
            case ["v1", "order", number] if number.isdecimal():
                order = self.orders.get(int(number))
                if order is None:
                    return Reply(404, {"message": "Not found"})
                included = set(call.query.get("include", "").split(","))
                return Reply(body=_with_includes(order, included))
            case ["v1", *_]:
                return Reply(404, {"message": "Not found"})
        return Reply(404, b"<html><body>404 Not Found (nginx)</body></html>")

    def _money(self) -> Any:
        amount = Decimal(self._random.randrange(100, 900_000)) / 100
        return self._random.choice([int(amount), f"{amount:.2f}", float(amount)])


def _with_includes(order: dict[str, Any], included: set[str]) -> dict[str, Any]:
    """The order with those parts alone that were asked for."""
    shown = {name: value for name, value in order.items() if name not in ("products", "buyer")}
    if "buyer" in included:
        shown["buyer"] = order["buyer"]
    if "products.offer" in included:
        shown["products"] = order["products"]
    elif "products" in included:
        shown["products"] = [
            {name: value for name, value in product.items() if name != "offer"}
            for product in order["products"]
        ]
    return shown
