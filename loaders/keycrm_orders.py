"""One order of KeyCRM and its items, fetched and kept (contract keycrm 2.1 to 2.3, spec orders).

The items alone are asked for beside the order itself: what is not stored (the buyer above all) is
not fetched.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, NamedTuple, TypeVar

import psycopg

from loaders.api import Api, FailedError, path_id
from loaders.mapping import Reading
from loaders.pace import Pace
from loaders.values import DECIMALS, read_value
from stageline.crm_values import identifier, instant, text
from stageline.progress import log

#: 60 requests a minute are allowed (contract 2.1).
PACE = Pace(calls=58, seconds=60.0)

#: Seconds to wait after a 429 that does not say how long, as other clients do (contract 2.1).
WAIT_UNSAID = 30.0

_NUMBER = Reading(name="number", type="numeric", round=DECIMALS)

_T = TypeVar("_T")


class Item(NamedTuple):
    """A line of an order: a row of ``raw_keycrm.order_items``."""

    position: int
    line_id: str | None
    product_id: str | None
    offer_id: str | None
    sku: str | None
    name: str | None
    quantity: Decimal | None
    price_sold: Decimal | None
    purchased_price: Decimal | None


class OrderState(NamedTuple):
    """An order as it is, without its items: a row of ``raw_keycrm.orders``."""

    status_id: str | None
    status_group_id: str | None
    source_id: str | None
    grand_total: Decimal | None
    created_at: datetime | None
    ordered_at: datetime | None
    updated_at: datetime | None
    closed_at: datetime | None
    payment_status: str | None = None
    status_changed_at: datetime | None = None


@dataclass(frozen=True)
class Order:
    """What KeyCRM answered about an order.

    Attributes:
        state: The order as it is.
        items: Its lines.
        unreadable: How many values could not be read; they are None.
    """

    state: OrderState
    items: tuple[Item, ...]
    unreadable: int


def token_header(token: str) -> tuple[str, str]:
    """Name and value of the header that opens the API."""
    return "Authorization", f"Bearer {token}"


def fetch(api: Api, order_id: str) -> Order | None:
    """Asks for an order and its items; None if KeyCRM no longer knows it.

    Raises:
        ApiError: there is no answer, or none that could be of this order.
    """
    answer = api.get(f"/order/{path_id(order_id)}", {"include": "products.offer"})
    return None if answer is None else read_order(answer, order_id)


def read_order(answer: Mapping[str, Any], order_id: str) -> Order:
    """The order that an answer tells of.

    Raises:
        FailedError: it is about another order, or lacks the items.
    """
    values = _Values()
    if values.read(identifier, answer, "id") != order_id:
        raise FailedError("an answer without the order that was asked for")
    products = answer.get("products", ())
    if "products" not in answer or not isinstance(products, list | None):
        raise FailedError("an order without a list of its items")
    state = OrderState(
        status_id=values.read(identifier, answer, "status_id"),
        status_group_id=values.read(identifier, answer, "status_group_id"),
        source_id=values.read(identifier, answer, "source_id"),
        grand_total=values.read(_number, answer, "grand_total"),
        created_at=values.read(instant, answer, "created_at"),
        ordered_at=values.read(instant, answer, "ordered_at"),
        updated_at=values.read(instant, answer, "updated_at"),
        closed_at=values.read(instant, answer, "closed_at"),
        payment_status=values.read(text, answer, "payment_status"),
        status_changed_at=values.read(instant, answer, "status_changed_at"),
    )
    items = tuple(
        _read_item(values, position, product)
        for position, product in enumerate(products or (), start=1)
    )
    return Order(state, items, values.unreadable)


def store(
    connection: psycopg.Connection[Any],
    project_id: str,
    order_id: str,
    order: Order | None,
    fetched_at: datetime,
) -> None:
    """Keeps what was answered, in one transaction; what is there already is not written again.

    Args:
        connection: Of the loader.
        project_id, order_id: Whose answer it is.
        order: The answer; None = KeyCRM no longer knows the order, and its items stay.
        fetched_at: When it was asked for. A state that was asked for later is not replaced.
    """
    key = {"project_id": project_id, "order_id": order_id, "fetched_at": fetched_at}
    with connection.transaction(), connection.cursor() as cursor:
        cursor.execute(_AWAIT_LOAD)
        if order is None:
            cursor.execute(_STORE_GONE, key)
            return
        cursor.execute(_STORE_STATE, {**key, **order.state._asdict()})
        _store_items(cursor, key, order.items)
    if order.unreadable:
        log().warning(
            "values of an order that could not be read",
            project=project_id,
            entity_id=order_id,
            values=order.unreadable,
        )


def _store_items(
    cursor: psycopg.Cursor[Any], key: Mapping[str, Any], items: tuple[Item, ...]
) -> None:
    """Replaces the items as a whole where they differ; their order's row is locked by now."""
    stored = cursor.execute(_STORED_ITEMS, key).fetchall()
    if stored == list(items):
        return
    if cursor.execute(_TOUCH_ORDER, key).rowcount == 0:
        return  # a later answer is there
    cursor.execute(_DELETE_ITEMS, key)
    cursor.executemany(_STORE_ITEM, [{**key, **item._asdict()} for item in items])


class _Values:
    """Reads values that may be unreadable, and counts those that are."""

    def __init__(self) -> None:
        self.unreadable = 0

    def read(
        self, read: Callable[[object], _T | None], data: Mapping[str, Any], name: str
    ) -> _T | None:
        try:
            return read(data.get(name))
        except ValueError:
            self.unreadable += 1
            return None


def _number(value: object) -> Decimal | None:
    read = read_value(text(value), _NUMBER)
    return read if isinstance(read, Decimal) else None


def _read_item(values: _Values, position: int, product: Any) -> Item:
    """The line at a position; one that is no object has nothing but its position."""
    if not isinstance(product, dict):
        values.unreadable += 1
        product = {}
    found = product.get("offer")
    offer = found if isinstance(found, dict) else {}  # free-text lines have none
    return Item(
        position=position,
        line_id=values.read(identifier, product, "id"),
        product_id=values.read(identifier, offer, "product_id"),
        offer_id=values.read(identifier, offer, "id"),
        sku=values.read(text, product, "sku") or values.read(text, offer, "sku"),
        name=values.read(text, product, "name"),
        quantity=values.read(_number, product, "quantity"),
        price_sold=values.read(_number, product, "price_sold"),
        purchased_price=values.read(_number, product, "purchased_price"),
    )


# A load merges many orders at once, and holds this lock alone meanwhile (loaders.destination).
_AWAIT_LOAD = """
select pg_advisory_xact_lock_shared(hashtextextended('stageline.load.raw_keycrm', 0))
"""

_STORE_GONE = """
insert into raw_keycrm.orders as orders (project_id, order_id, is_gone, fetched_at)
values (%(project_id)s, %(order_id)s, true, %(fetched_at)s)
on conflict (project_id, order_id) do update
set is_gone = true, fetched_at = excluded.fetched_at, fetched_xid = excluded.fetched_xid
where not orders.is_gone and orders.fetched_at <= excluded.fetched_at
"""

_STORE_STATE = """
insert into raw_keycrm.orders as orders (
    project_id, order_id, status_id, status_group_id, source_id, grand_total,
    created_at, ordered_at, updated_at, closed_at, payment_status, status_changed_at, fetched_at
)
values (
    %(project_id)s, %(order_id)s, %(status_id)s, %(status_group_id)s, %(source_id)s,
    %(grand_total)s, %(created_at)s, %(ordered_at)s, %(updated_at)s, %(closed_at)s,
    %(payment_status)s, %(status_changed_at)s, %(fetched_at)s
)
on conflict (project_id, order_id) do update
set
    status_id = excluded.status_id,
    status_group_id = excluded.status_group_id,
    source_id = excluded.source_id,
    grand_total = excluded.grand_total,
    created_at = excluded.created_at,
    ordered_at = excluded.ordered_at,
    updated_at = excluded.updated_at,
    closed_at = excluded.closed_at,
    payment_status = excluded.payment_status,
    status_changed_at = excluded.status_changed_at,
    is_gone = false,
    fetched_at = excluded.fetched_at,
    fetched_xid = excluded.fetched_xid
where
    (orders.fetched_at <= excluded.fetched_at or orders.updated_at < excluded.updated_at)
    and (
        orders.status_id, orders.status_group_id, orders.source_id, orders.grand_total,
        orders.created_at, orders.ordered_at, orders.updated_at, orders.closed_at,
        orders.payment_status, orders.status_changed_at, orders.is_gone
    ) is distinct from (
        excluded.status_id, excluded.status_group_id, excluded.source_id, excluded.grand_total,
        excluded.created_at, excluded.ordered_at, excluded.updated_at, excluded.closed_at,
        excluded.payment_status, excluded.status_changed_at, false
    )
"""

_STORED_ITEMS = """
select
    position, line_id, product_id, offer_id, sku, name, quantity, price_sold, purchased_price
from raw_keycrm.order_items
where project_id = %(project_id)s and order_id = %(order_id)s
order by position
"""

_TOUCH_ORDER = """
update raw_keycrm.orders
set fetched_at = %(fetched_at)s, fetched_xid = pg_current_xact_id()
where
    project_id = %(project_id)s
    and order_id = %(order_id)s
    and fetched_at <= %(fetched_at)s
"""

_DELETE_ITEMS = """
delete from raw_keycrm.order_items where project_id = %(project_id)s and order_id = %(order_id)s
"""

_STORE_ITEM = """
insert into raw_keycrm.order_items (
    project_id, order_id, position, line_id, product_id, offer_id, sku, name,
    quantity, price_sold, purchased_price, fetched_at
)
values (
    %(project_id)s, %(order_id)s, %(position)s, %(line_id)s, %(product_id)s, %(offer_id)s,
    %(sku)s, %(name)s, %(quantity)s, %(price_sold)s, %(purchased_price)s, %(fetched_at)s
)
"""
