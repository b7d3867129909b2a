"""From what was received and fetched to the event log and the order items that analysts query."""

from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg

from loaders import keycrm_orders, pipedrive_deals
from loaders.keycrm_orders import Item, Order, OrderState
from loaders.pipedrive_deals import Change, Deal, DealState
from stageline.database import Connection, connect
from stageline.settings import projects
from tests.warm_dbt import WarmDbt
from webhook_receiver.delivery import Delivery, read
from webhook_receiver.raw_tables import insert
from webhook_receiver.session import connected

SENT = Path(__file__).parents[1] / "unit" / "senders"
CREATED = datetime(2026, 3, 1, 7, 0, 2, tzinfo=UTC)
MOVED = datetime(2026, 3, 4, 9, 12, 40, tzinfo=UTC)
RETURNED = datetime(2026, 3, 5, 10, 0, tzinfo=UTC)
ORDERED = datetime(2026, 2, 10, 19, 2, 11, tzinfo=UTC)
APPROVED = datetime(2026, 2, 11, 8, 30, 5, tzinfo=UTC)
#: When all of it was received, and when the CRMs were asked.
LATER = datetime(2026, 3, 7, tzinfo=UTC)

LOG = """
select
    entity_id, stage_id, previous_stage_id, pipeline_id, stage_group_id, source_sequence,
    entered_at, entity_created_at, delivery_id
from staging.stg_stage_events
order by entity_id, entered_at, stage_id
"""
FIRST_TOLD = """
select log.ingested_at = events.ingested_at
from staging.stg_stage_events as log
inner join raw.stage_events as events on log.delivery_id = events.delivery_id::text
where log.entity_type = 'order'
"""
ITEMS = """
select order_key, position, sku, quantity, price_sold, currency, is_deleted
from staging.stg_order_items
"""


def ask(owner: Connection, query: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(**owner.libpq()) as session:
        return session.execute(query).fetchall()


def receive(sender: str, project: str, *names: str) -> list[str]:
    """Lands recorded bodies, and gives their delivery ids."""
    deliveries = [
        read(Delivery(sender, project, LATER, (), {}, (SENT / name).read_bytes(), "UTC"))
        for name in names
    ]
    with connected() as session:
        insert(session, deliveries)
    return [str(delivery.delivery_id) for delivery in deliveries]


def fetch_deals() -> None:
    """Keeps what Pipedrive answers: a deal that came back, and two that it no longer knows."""
    changes = (
        Change("915", "stage_id", "5", "4", None, None, None, None, RETURNED),
        Change("902", "stage_id", "4", "5", None, None, None, None, MOVED),
        Change("880", "add_time", None, "2026-03-01 07:00:02", None, None, None, None, CREATED),
    )
    moved = Deal(DealState("1", "4", "open", False, CREATED), changes, 0)
    never_moved = Deal(DealState("2", "30", "open", False, CREATED), (), 0)
    with connect("loader") as session:
        pipedrive_deals.store(session, "deals", "55", moved, LATER)
        pipedrive_deals.store(session, "deals", "56", never_moved, LATER)
        for gone in ("56", "57"):
            pipedrive_deals.store(session, "deals", gone, None, LATER)


def fetch_order() -> None:
    """Keeps what KeyCRM answers: an order of one item, which it does not know later on."""
    state = OrderState("20", "2", "7", Decimal(1250), ORDERED, ORDERED, APPROVED, None)
    item = Item(1, None, "7", "16", "A-1", "Lamp", Decimal("1.5"), Decimal(4100), None)
    with connect("loader") as session:
        keycrm_orders.store(session, "shop", "4021", Order(state, (item,), 0), LATER)
        keycrm_orders.store(session, "shop", "4021", None, LATER)


def test_all_that_is_told_of_deals_and_orders_is_one_log(
    sample_database: Connection, dbt: WarmDbt
) -> None:
    assert ask(sample_database, LOG) == ask(sample_database, ITEMS) == []

    projects.add("pipedrive", "deals")
    projects.add("keycrm", "shop", currency="UAH")
    created, moved = receive(
        "pipedrive", "deals", "pipedrive_v2_create.json", "pipedrive_v2_change.json"
    )
    (final,) = receive("zapier", "deals", "zapier_final_stage.json")
    (order,) = receive("keycrm", "shop", "keycrm_order_status.json")
    fetch_deals()
    fetch_order()
    dbt.run("stg_stage_events", "stg_order_items")
    assert set(dbt.test("stg_stage_events", "stg_order_items").values()) == {"pass"}

    assert ask(sample_database, LOG) == [
        ("4021", "20", None, None, "2", None, APPROVED, ORDERED, order),
        ("55", "4", None, "1", None, 0, CREATED, CREATED, created),
        ("55", "5", "4", "1", None, 1, MOVED, CREATED, moved),
        ("55", "9", None, "1", None, None, MOVED, None, final),
        ("55", "4", "5", "1", None, 2, RETURNED, CREATED, None),
        ("56", "30", None, "2", None, 0, CREATED, CREATED, None),
    ]
    assert ask(sample_database, FIRST_TOLD) == [(True,)]
    assert ask(sample_database, ITEMS) == [
        ("keycrm|shop|4021", 1, "A-1", Decimal("1.5"), Decimal(4100), "UAH", True)
    ]
