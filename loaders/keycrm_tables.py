"""The tables that loads of KeyCRM fill (contract keycrm 2.2 and 2.3)."""

import json
from collections.abc import Sequence
from hashlib import sha256
from itertools import chain, islice
from typing import Any

from loaders.api import FailedError
from loaders.records import Column, Record, Table

DATASET = "raw_keycrm"


def lines_of(order: Record) -> list[Record]:
    """The lines of an order, as records of `ORDER_ITEMS`."""
    return [
        {"order_id": order.get("id"), "position": place, "product": product}
        for place, product in enumerate(products_of(order), 1)
    ]


def products_of(order: Record) -> list[Any]:
    """What stands in an order.

    Raises:
        FailedError: it lacks the list, which was asked for.
    """
    products = order.get("products", ())
    if "products" not in order or not isinstance(products, list | None):
        raise FailedError("an order without a list of its items")
    return products or []


def part_of(record: Record, name: str) -> Record:
    """A part of a record; empty where there is none."""
    inner = record.get(name)
    return inner if isinstance(inner, dict) else {}


def _id_of(flat: str, part: str) -> Column:
    """The id of a part of an order, which is there flat or within the part."""

    def find(order: Record) -> object:
        inner = order.get(part)
        there = order.get(flat)
        return inner.get("id") if there is None and isinstance(inner, dict) else there

    return Column(f"{part}_id", "id", find)


def _sku(line: Record) -> object:
    """As the line has it, or else its offer."""
    product, offer = part_of(line, "product"), part_of(part_of(line, "product"), "offer")
    return product.get("sku") or offer.get("sku")


def _items_marks(orders: list[Any]) -> list[object]:
    """Of each order a text that differs where its items differ, in what is kept of them."""
    lines = [lines_of(order) for order in orders]
    whole, known = list(chain.from_iterable(lines)), dict[str, Sequence[Record]]()
    kept = zip(*(map(str, each.found(whole, known)) for each in ORDER_ITEMS.columns), strict=True)
    return [
        sha256(json.dumps(list(islice(kept, len(own)))).encode()).hexdigest()[:32] for own in lines
    ]


def _custom_fields(order: Record) -> object:
    """What is filled in of the account's own fields: by the id that people give a field or, where
    it has none, by its name. Anything but a list of fields is kept as it came.
    """
    fields = order.get("custom_fields")
    if not isinstance(fields, list) or not all(isinstance(each, dict) for each in fields):
        return fields
    return {
        str(each.get("uuid") or each.get("name") or each.get("id")): each.get("value")
        for each in fields
        if each.get("value") not in (None, "", [])
    }


ORDERS = Table(
    DATASET,
    "orders",
    ("order_id",),
    (
        Column("order_id", "id", "id"),
        Column("parent_id", "id"),
        Column("source_id", "id"),
        Column("source_uuid", "text"),
        Column("status_id", "id"),
        Column("status_group_id", "id"),
        _id_of("manager_id", "manager"),
        _id_of("client_id", "buyer"),
        Column("payment_status", "text"),
        Column("grand_total", "numeric"),
        Column("total_discount", "numeric"),
        Column("shipping_price", "numeric"),
        Column("utm_source", "text", "marketing.utm_source"),
        Column("utm_medium", "text", "marketing.utm_medium"),
        Column("utm_campaign", "text", "marketing.utm_campaign"),
        Column("utm_term", "text", "marketing.utm_term"),
        Column("utm_content", "text", "marketing.utm_content"),
        Column("item_count", "integer", lambda order: len(products_of(order))),
        Column("items_mark", "text", lambda order: order, meant=_items_marks),
        Column("created_at", "timestamp"),
        Column("ordered_at", "timestamp"),
        Column("updated_at", "timestamp"),
        Column("status_changed_at", "timestamp"),
        Column("closed_at", "timestamp"),
        Column("custom_fields", "json", _custom_fields),
    ),
    is_swept=True,
)
#: A line has an id at times (contract 2.3): its place in the order is what it is known by.
ORDER_ITEMS = Table(
    DATASET,
    "order_items",
    ("order_id", "position"),
    (
        Column("order_id", "id"),
        Column("position", "int32"),
        Column("line_id", "id", "product.id"),
        Column("product_id", "id", "product.offer.product_id"),
        Column("offer_id", "id", "product.offer.id"),
        Column("sku", "text", _sku),
        Column("name", "text", "product.name"),
        Column("quantity", "numeric", "product.quantity"),
        Column("price_sold", "numeric", "product.price_sold"),
        Column("purchased_price", "numeric", "product.purchased_price"),
    ),
)
ORDER_STATUSES = Table(
    DATASET,
    "order_statuses",
    ("status_id",),
    (
        Column("status_id", "id", "id"),
        Column("name", "text"),
        Column("alias", "text"),
        Column("group_id", "id"),
        Column("is_active", "boolean"),
        Column("is_closing_order", "boolean"),
        Column("is_reserved", "boolean"),
        Column("expiration_period", "integer"),
        Column("created_at", "timestamp"),
        Column("updated_at", "timestamp"),
        Column("deleted_at", "timestamp"),
    ),
    is_swept=True,
)
ORDER_SOURCES = Table(
    DATASET,
    "order_sources",
    ("source_id",),
    (
        Column("source_id", "id", "id"),
        Column("name", "text"),
        Column("alias", "text"),
        Column("driver", "text"),
    ),
)
USERS = Table(
    DATASET,
    "users",
    ("user_id",),
    (Column("user_id", "id", "id"), Column("full_name", "text"), Column("status", "text")),
)
