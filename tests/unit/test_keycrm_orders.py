"""How an order and its items are read from KeyCRM's answer."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from loaders.api import FailedError
from loaders.keycrm_orders import read_order


def answer(*products: Any, **more: Any) -> dict[str, Any]:
    return {
        "id": 4021,
        "status_id": 20,
        "status_group_id": 2,
        "source_id": 7,
        "grand_total": "1250.00",
        "created_at": "2026-02-10T19:02:11.000000Z",
        "ordered_at": "2026-02-10 19:00:00",
        "updated_at": None,
        "closed_at": "",
        "payment_status": "part_paid",
        "status_changed_at": "2026-02-11T08:30:05.000000Z",
        "products": list(products),
        **more,
    }


def test_an_order_is_read_in_both_forms_of_times_and_numbers() -> None:
    order = read_order(answer(), "4021")
    assert order.unreadable == 0
    assert order.state._asdict() == {
        "status_id": "20",
        "status_group_id": "2",
        "source_id": "7",
        "grand_total": Decimal(1250),
        "created_at": datetime(2026, 2, 10, 19, 2, 11, tzinfo=UTC),
        "ordered_at": datetime(2026, 2, 10, 19, tzinfo=UTC),
        "updated_at": None,
        "closed_at": None,
        "payment_status": "part_paid",
        "status_changed_at": datetime(2026, 2, 11, 8, 30, 5, tzinfo=UTC),
    }


def test_items_count_from_one_in_the_order_of_the_answer() -> None:
    order = read_order(answer({"name": "b"}, {"name": "a"}), "4021")
    assert [(item.position, item.name) for item in order.items] == [(1, "b"), (2, "a")]


def test_a_line_of_the_catalogue_has_the_ids_of_its_offer() -> None:
    product = {
        "id": 9,
        "sku": "",
        "quantity": "1.5",
        "price_sold": 33.333333333333,
        "purchased_price": None,
        "offer": {"id": 16, "product_id": 2, "sku": "Термінове виготовлення"},
    }
    (item,) = read_order(answer(product), "4021").items
    assert (item.line_id, item.offer_id, item.product_id) == ("9", "16", "2")
    assert item.sku == "Термінове виготовлення"
    assert (item.quantity, item.purchased_price) == (Decimal("1.5"), None)
    assert item.price_sold == Decimal("33.333333333")


@pytest.mark.parametrize("offer", [None, [], "none"])
def test_a_line_of_free_text_has_no_ids(offer: Any) -> None:
    order = read_order(answer({"name": "Engraving", "offer": offer}), "4021")
    (item,) = order.items
    assert (item.line_id, item.offer_id, item.product_id) == (None, None, None)
    assert order.unreadable == 0


def test_what_cannot_be_read_leaves_the_rest_of_the_order_readable() -> None:
    order = read_order(
        answer(
            "no object", {"name": "Kiosk", "quantity": "many"}, created_at="0000-00-00 00:00:00"
        ),
        "4021",
    )
    assert order.unreadable == 3
    assert [(item.name, item.quantity) for item in order.items] == [(None, None), ("Kiosk", None)]
    assert order.state.created_at is None


def test_no_list_of_items_is_not_an_empty_list() -> None:
    without = answer()
    del without["products"]
    for wrong in (without, answer(products={"1": {}})):
        with pytest.raises(FailedError, match="items"):
            read_order(wrong, "4021")
    assert read_order(answer(products=None), "4021").items == ()


def test_another_order_is_not_stored_as_this_one() -> None:
    with pytest.raises(FailedError, match="that was asked for"):
        read_order(answer(), "4022")
