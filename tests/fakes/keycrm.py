"""KeyCRM's API as contract keycrm describes it: orders with items, and the account's lists."""

import bisect
import json
import random
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import cache
from typing import Any

from tests.fakes.crm_server import Call, CrmServer, Limit, Reply

#: What KeyCRM allows (contract 2.1).
USUAL_LIMIT = Limit(60, 60.0)

#: Status -> name, group, whether it closes orders.
STATUSES = {
    1: ("Новий", 1, False),
    12: ("Погодження", 2, False),
    13: ("Старе погодження", 2, False),
    20: ("Передзвонити", 2, False),
    31: ("Виробництво", 3, False),
    41: ("Доставка", 4, False),
    51: ("Виконано", 5, True),
    61: ("Скасовано", 6, True),
    62: ("Недозвон", 6, True),
}
#: Parts of an order that are told only where they are asked for.
_PARTS = ("products", "buyer", "manager", "marketing", "custom_fields")
#: All of them, as they are asked for.
_ALL_PARTS = ("products.offer", "buyer", "manager", "marketing", "custom_fields")
_LARGEST_PAGE, _USUAL_PAGE = 50, 15


class FakeKeycrm(CrmServer):
    """A fake KeyCRM account.

    Attributes:
        orders: The truth, by id: orders as the API gives them, with all their parts.
        statuses: The truth, by id; those that are not active are not listed.
        moves: Order -> the statuses that it has been in, each with when it came there.
        tells_moves: Whether orders say when their status changed.
        says_when: Whether 429 comes with Retry-After.
        between_pages: Is called after each page of orders.
    """

    usual_limit = USUAL_LIMIT

    def __init__(self, seed: int = 1, *, limit: Limit | None = USUAL_LIMIT) -> None:
        super().__init__(limit)
        self.orders: dict[int, dict[str, Any]] = {}
        self.statuses = {
            number: {
                "id": number,
                "name": name,
                "alias": f"status_{number}",
                "is_active": True,
                "group_id": group,
                "is_closing_order": closes,
                "is_reserved": False,
                "expiration_period": None,
                "created_at": "2025-01-01T00:00:00.000000Z",
                "updated_at": "2025-01-01 00:00:00",
                "deleted_at": None,
            }
            for number, (name, group, closes) in STATUSES.items()
        }
        self.moves: dict[int, list[tuple[int, datetime]]] = {}
        self.tells_moves = self.says_when = True
        self.between_pages: Callable[[], None] = lambda: None
        self._random = random.Random(seed)  # noqa: S311 - no secret
        self._next_id = 4001
        self._found: dict[tuple[tuple[str, str], ...], list[dict[str, Any]]] = {}
        self._by_time: dict[str, list[tuple[datetime, dict[str, Any]]]] = {}
        self._texts: dict[int, str] = {}

    @property
    def base_url(self) -> str:
        return f"{self.url}/v1"

    def populate(self, deals: int = 100, *, days: int = 120) -> None:
        """An account with so many orders of the last days, most of which are closed by now."""
        now = datetime.now(UTC).replace(microsecond=0)
        self.statuses[13]["is_active"] = False
        for _ in range(deals):
            created_at = now - timedelta(seconds=self._random.randrange(3600, days * 86_400))
            order_id = self.add_order(self._random.choice([0, 1, 1, 2, 5]), created_at)
            left = now - created_at
            at = created_at
            for _ in range(self._random.choice([0, 1, 2, 4])):
                at += timedelta(seconds=self._random.randrange(int(left.total_seconds() / 5)))
                self.move(order_id, at=at)
            if self._random.random() < 0.5 and left > timedelta(days=14):
                self.move(order_id, self._random.choice([51, 51, 61, 62]), at=at)

    def add_order(self, items: int = 2, created_at: datetime | None = None) -> int:
        """An order with so many lines, of some months ago where not told when; gives its id."""
        order_id, self._next_id = self._next_id, self._next_id + 1
        if created_at is None:
            created_at = datetime(2026, 2, 1, tzinfo=UTC) + timedelta(
                seconds=self._random.randrange(5_000_000)
            )
        status = self._random.choice([1, 12, 20])
        self.orders[order_id] = {
            "id": order_id,
            "parent_id": None,
            "source_id": 7,
            "source_uuid": f"SITE-{order_id}",
            "status_id": status,
            "status_group_id": self.statuses[status]["group_id"],
            "grand_total": self._money(),
            "total_discount": 0,
            "shipping_price": self._random.choice([None, "75.00"]),
            "payment_status": "not_paid",
            "manager_comment": "call back",
            # Both forms of a time that are seen in answers.
            "created_at": created_at.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            "ordered_at": created_at.strftime("%Y-%m-%d %H:%M:%S"),
            "updated_at": None,
            "status_changed_at": None,
            "closed_at": None,
            "products": [self.make_product() for _ in range(items)],
            "buyer": {"id": 910, "full_name": "Olena K.", "phone": "+380501112233"},
            "manager": self._random.choice([None, {"id": 6, "full_name": "Ira"}]),
            "marketing": self._random.choice(
                [None, {"utm_source": "google", "utm_medium": "cpc", "utm_campaign": None}]
            ),
            "custom_fields": [
                {"id": 1, "uuid": "OR_1001", "name": "Branch", "type": "text", "value": "North"},
                {"id": 2, "uuid": None, "name": "Sizes", "type": "select", "value": ["S", "L"]},
                {"id": 3, "uuid": "OR_1003", "name": "Note", "type": "text", "value": None},
            ],
        }
        self.moves[order_id] = [(status, created_at)]
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

    def move(self, order_id: int, status: int | None = None, at: datetime | None = None) -> None:
        """An order comes into another status."""
        order, at = self.orders[order_id], at or datetime.now(UTC)
        others = [each for each in self.statuses if each != order["status_id"]]
        status = status or self._random.choice(others)
        group = self.statuses[status]["group_id"]
        closed_at = self._written(at) if self.statuses[status]["is_closing_order"] else None
        self._change(
            order_id,
            at,
            status_id=status,
            status_group_id=group,
            status_changed_at=self._written(at),
            closed_at=closed_at,
        )
        self.moves[order_id].append((status, at.replace(microsecond=0)))

    def pay(self, order_id: int) -> None:
        """The payment of an order changes."""
        now = self.orders[order_id]["payment_status"]
        states = ["not_paid", "part_paid", "paid", "overpaid"]
        self._change(order_id, payment_status=self._random.choice([s for s in states if s != now]))

    def price(self, order_id: int) -> None:
        """An order costs another sum."""
        self._change(order_id, grand_total=self._money())

    def assign(self, order_id: int) -> None:
        """An order gets another manager."""
        manager = {"id": self._random.randrange(2, 9), "full_name": "Petro"}
        self._change(order_id, manager=manager)

    def edit_items(self, order_id: int) -> None:
        """Lines of an order go, come and change."""
        products = list(self.orders[order_id]["products"])
        if products and self._random.random() < 0.6:
            del products[self._random.randrange(len(products))]
        if self._random.random() < 0.6:
            products.insert(0, self.make_product())
        self._change(order_id, products=products)

    def delete(self, order_id: int) -> None:
        """An order disappears."""
        del self.orders[order_id]

    def merge_buyers(self, gone: int, kept: int) -> None:
        """The orders of a buyer become another one's."""
        for order_id, order in self.orders.items():
            if order["buyer"]["id"] == gone:
                self._change(order_id, buyer={**order["buyer"], "id": kept})

    def change_something(self) -> None:
        """An order of any age, or a new one, changes as they do."""
        if not self.orders or self._random.random() < 0.2:
            # One in three has no time of a change yet, and is missing where that is asked for.
            order_id = self.add_order(created_at=datetime.now(UTC))
            if self._random.random() < 0.66:
                self.pay(order_id)
            return
        order_id = self._random.choice(list(self.orders))
        changes = [self.move, self.move, self.pay, self.price, self.assign, self.edit_items]
        if self._random.random() < 0.12:
            changes = [self.delete]
        self._random.choice(changes)(order_id)

    def is_authentic(self, call: Call) -> bool:
        return call.headers.get("authorization") == f"Bearer {self.token}"

    def unauthentic(self) -> Reply:
        return Reply(401, {"message": "Unauthenticated."})

    def over_limit(self, wait: float, _kind: str) -> Reply:
        headers = {"Retry-After": str(int(wait) + 1)} if self.says_when else {}
        return Reply(429, {"message": "Too Many Attempts."}, headers)

    def answer(self, call: Call) -> Reply:
        match call.path.strip("/").split("/"):
            case ["v1", "order", number] if number.isdecimal():
                order = self.orders.get(int(number))
                if order is None:
                    return Reply(404, {"message": "Not found"})
                return Reply(body=self._shown(order, call))
            case ["v1", "order"]:
                return self._order_list(call)
            case ["v1", "order", "status"]:
                return _page(call, [each for each in self.statuses.values() if each["is_active"]])
            case ["v1", "order", "source"]:
                return _page(call, [{"id": 7, "name": "Site", "alias": "site", "driver": "rest"}])
            case ["v1", "users"]:
                return _page(call, [{"id": 6, "full_name": "Ira", "status": "active"}])
            case ["v1", "pipelines", *_]:
                return Reply(400, {"message": "Leads are not enabled"})
            case ["v1", *_]:
                return Reply(404, {"message": "Not found"})
        return Reply(404, b"<html><body>404 Not Found (nginx)</body></html>")

    def be_still(self) -> None:
        for field in ("updated_at", "ordered_at"):
            timed = [o for o in self.orders.values() if o[field] is not None]
            self._by_time[field] = sorted(
                ((_instant(order[field]), order) for order in timed),
                key=lambda entry: (entry[0], entry[1]["id"]),
            )
        asked = Call(0, "", {"include": ",".join(_ALL_PARTS)}, {})
        for number, order in self.orders.items():
            self._texts[number] = json.dumps(self._shown(order, asked))

    def _order_list(self, call: Call) -> Reply:
        filters = tuple((n, v) for n, v in call.query.items() if n.startswith("filter["))
        found = self._found.get(filters)
        if found is None:
            try:
                found = self._filtered(filters)
            except ValueError:
                return Reply(422, {"message": "The filter is invalid."})
            if self._texts:
                self._found[filters] = found
        reply = _page(call, found if call.query.get("sort") == "id" else found[::-1])
        orders = reply.body.pop("data")
        self.between_pages()
        if self._texts and set(call.query.get("include", "").split(",")) == set(_ALL_PARTS):
            data = ", ".join(self._texts[int(order["id"])] for order in orders)
            return Reply(body=f'{json.dumps(reply.body)[:-1]}, "data": [{data}]}}'.encode())
        reply.body["data"] = [self._shown(order, call) for order in orders]
        return reply

    def _filtered(self, filters: Iterable[tuple[str, str]]) -> list[dict[str, Any]]:
        """The orders that meet filters, by id.

        Raises:
            ValueError: one of them is none that KeyCRM knows, or is not written as it wants it.
        """
        found = list(self.orders.values())
        for name, value in filters:
            match name:
                case "filter[status_id]":
                    found = [order for order in found if str(order["status_id"]) == value]
                case "filter[updated_between]" | "filter[created_between]":
                    # `created_between` is about ordered_at (contract 2.3).
                    field = "updated_at" if "updated" in name else "ordered_at"
                    begin, end = (
                        datetime.strptime(each, "%Y-%m-%d %H:%M:%S").replace(tzinfo=UTC)
                        for each in value.split(",")
                    )
                    if field in self._by_time and len(found) == len(self.orders):
                        found = self._between(field, begin, end)
                        continue
                    found = [
                        order
                        for order in found
                        if order[field] is not None and begin <= _instant(order[field]) < end
                    ]
                case _:
                    raise ValueError
        return sorted(found, key=lambda order: int(order["id"]))

    def _between(self, field: str, begin: datetime, end: datetime) -> list[dict[str, Any]]:
        """All orders of a range of time, where nothing changes any longer."""
        timed = self._by_time[field]
        first, last = (
            bisect.bisect_left(timed, at, key=lambda entry: entry[0]) for at in (begin, end)
        )
        return [order for _, order in timed[first:last]]

    def _shown(self, order: dict[str, Any], call: Call) -> dict[str, Any]:
        """The order with those parts alone that were asked for."""
        included = set(call.query.get("include", "").split(","))
        shown = {name: value for name, value in order.items() if name not in _PARTS}
        if not self.tells_moves:
            del shown["status_changed_at"]
        for part in ("buyer", "manager", "marketing", "custom_fields"):
            if part in included:
                shown[part] = order.get(part)
        if "products.offer" in included:
            shown["products"] = order["products"]
        elif "products" in included:
            shown["products"] = [
                {name: value for name, value in product.items() if name != "offer"}
                for product in order["products"]
            ]
        return shown

    def _change(self, order_id: int, at: datetime | None = None, **values: Any) -> None:
        order = self.orders[order_id]
        self.orders[order_id] = {
            **order,
            **values,
            "updated_at": self._written(at or datetime.now(UTC)),
        }

    def _written(self, at: datetime) -> str:
        """A time to the second, in one of the two forms that are seen."""
        forms = ["%Y-%m-%dT%H:%M:%S.000000Z", "%Y-%m-%d %H:%M:%S"]
        return at.strftime(self._random.choice(forms))

    def _money(self) -> Any:
        amount = Decimal(self._random.randrange(100, 900_000)) / 100
        return self._random.choice([int(amount), f"{amount:.2f}", float(amount)])


def _page(call: Call, records: Sequence[dict[str, Any]]) -> Reply:
    """A page of a list; the links lead elsewhere, and without what was asked for."""
    page = int(call.query.get("page", "1"))
    size = min(int(call.query.get("limit", str(_USUAL_PAGE))), _LARGEST_PAGE)
    last = max(1, -(-len(records) // size))
    address = "https://openapi.keycrm.example/v1/list?page="
    return Reply(
        body={
            "total": len(records),
            "current_page": page,
            "per_page": size,
            "data": list(records[(page - 1) * size : page * size]),
            "first_page_url": f"{address}1",
            "last_page_url": f"{address}{last}",
            "next_page_url": f"{address}{page + 1}" if page < last else None,
        }
    )


@cache
def _instant(written: str) -> datetime:
    read = datetime.fromisoformat(written)
    return read if read.tzinfo else read.replace(tzinfo=UTC)
