"""Follow-up work: every delivery leads to an answer, at the CRM's pace, whatever goes wrong."""

import multiprocessing
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any, LiteralString

import psycopg
import pytest
from structlog.testing import capture_logs

from jobs.follow_ups import (
    FollowUp,
    Rules,
    State,
    claim,
    drain,
    plan,
    retry,
    run_due,
    run_one,
    states,
)
from loaders import keycrm_orders, pipedrive_deals
from loaders.api import ThrottledError
from loaders.calls import PATIENCE, LaterError, Turns
from loaders.pace import Account, BusyError, Pace, block, reserve
from stageline import config
from stageline.database import connect
from stageline.settings import api_accounts, encryption, projects
from tests.conftest import TEMPLATE, TestServer, _clone
from tests.fakes.crm_server import WALL, Limit, Reply
from tests.fakes.keycrm import FakeKeycrm
from tests.fakes.pipedrive import DealTruth, FakePipedrive

#: As usual, but quick.
QUICK = Rules(
    first_backoff=0.02,
    last_backoff=0.05,
    idle=0.02,
    paces={"pipedrive_deal": Pace(1000, 1.0), "keycrm_order": Pace(1000, 1.0)},
)

Connection = psycopg.Connection[Any]


class Setting:
    """A database with two projects whose CRMs are fakes, and a worker's connections.

    Attributes:
        pipedrive, keycrm: The fakes of project ``deals`` and project ``shop``.
        owner, jobs, loader: Connections of these roles, in autocommit mode.
    """

    def __init__(self, pipedrive: FakePipedrive, keycrm: FakeKeycrm) -> None:
        self.pipedrive, self.keycrm = pipedrive, keycrm
        self.owner = connect("owner", autocommit=True)
        self.jobs = connect("jobs", autocommit=True)
        self.loader = connect("loader", autocommit=True)

    def close(self) -> None:
        for connection in (self.owner, self.jobs, self.loader):
            connection.close()

    def deal_arrives(self, *deal_ids: int, sender: str = "pipedrive") -> None:
        for deal_id in deal_ids:
            land(self.owner, sender, "pipedrive", "deals", "deal", str(deal_id))

    def order_arrives(self, *order_ids: int) -> None:
        for order_id in order_ids:
            land(self.owner, "keycrm", "keycrm", "shop", "order", str(order_id))

    def work(self, rules: Rules = QUICK) -> int:
        """Runs what is due now."""
        return run_due(self.jobs, self.loader, "test", rules)

    def claimed(self, rules: Rules = QUICK) -> FollowUp:
        plan(self.jobs, rules)
        found = claim(self.jobs, "test", rules)
        assert found is not None
        return found

    def state(self) -> State:
        """The only follow-up that is not done."""
        (found,) = states(self.jobs)
        return found

    def rows(self, query: LiteralString, *values: object) -> list[tuple[Any, ...]]:
        return self.owner.execute(query, values).fetchall()

    def value(self, query: LiteralString, *values: object) -> Any:
        ((found,),) = self.rows(query, *values)
        return found

    def blocked_seconds(self, source_system: str) -> float:
        seconds: float = self.value(
            "select extract(epoch from blocked_until - now())::float from ops.api_pace"
            " where source_system = %s",
            source_system,
        )
        return seconds


def land(
    session: Connection,
    sender: str,
    source_system: str,
    project_id: str,
    entity_type: str,
    *entity_ids: str,
) -> uuid.UUID:
    """What the receiver writes for a delivery."""
    delivery_id = uuid.uuid4()
    session.execute(
        """
        insert into raw.deliveries (
            delivery_id, sender, source_system, project_id, received_at, check_ids, body_bytes,
            body_sha256, entity_type, entity_ids
        )
        values (%s, %s, %s, %s, now(), '{}', 2, sha256('{}'), %s, %s)
        """,
        [
            delivery_id,
            sender,
            source_system,
            project_id,
            entity_type,
            list(entity_ids),
        ],
    )
    return delivery_id


@pytest.fixture(scope="module")
def shared_database(server: TestServer, short_folder: Path) -> Iterator[None]:
    """One database for this module: a copy for each test would take longer than the tests."""
    folder = short_folder / "follow_ups"
    folder.mkdir()
    with pytest.MonkeyPatch.context() as patch, _clone(server, TEMPLATE, folder, patch):
        patch.setenv("STAGELINE_SECRET_KEY", encryption.new_key())
        config.settings.cache_clear()
        yield


@pytest.fixture
def here(shared_database: None) -> Iterator[Setting]:  # noqa: ARG001 - what is configured here
    with FakePipedrive() as pipedrive, FakeKeycrm(limit=None) as keycrm:
        setting = Setting(pipedrive, keycrm)
        setting.owner.execute(
            """
            truncate settings.projects, ops.follow_ups, ops.api_pace, raw.deliveries, raw.replays,
                raw_pipedrive.deals, raw_pipedrive.deal_changes, raw_keycrm.orders,
                raw_keycrm.order_items
            cascade
            """
        )
        for source, project, server in (
            ("pipedrive", "deals", pipedrive),
            ("keycrm", "shop", keycrm),
        ):
            projects.add(source, project)
            api_accounts.store(source, project, server.token, server.base_url)
        yield setting
        setting.close()


VERSIONS: dict[str, LiteralString] = {
    "deals": "select deal_id, xmin::text, ctid::text from raw_pipedrive.deals order by 1",
    "deal_changes": (
        "select change_id, xmin::text, ctid::text from raw_pipedrive.deal_changes order by 1"
    ),
    "orders": "select order_id, xmin::text, ctid::text from raw_keycrm.orders order by 1",
    "order_items": (
        "select order_id || '/' || position, xmin::text, ctid::text"
        " from raw_keycrm.order_items order by 1"
    ),
}


def versions(here: Setting) -> dict[str, list[tuple[Any, ...]]]:
    """Which version of each row is there: a new one is seen even where it holds the same."""
    return {table: here.rows(query) for table, query in VERSIONS.items()}


def stored_changes(here: Setting) -> set[tuple[Any, ...]]:
    return set(
        here.rows(
            "select deal_id, change_id, field_key, old_value, new_value, changed_at"
            " from raw_pipedrive.deal_changes"
        )
    )


def true_changes(*deals: DealTruth) -> set[tuple[Any, ...]]:
    def text(value: Any) -> str | None:
        return None if value is None else str(value)

    return {
        (str(d.deal_id), str(c.change_id), c.field_key, text(c.old), text(c.new), c.at)
        for d in deals
        for c in d.changes
    }


# What is fetched and stored


def test_deals_are_stored_as_they_are_with_all_their_changes(here: Setting) -> None:
    deals = [here.pipedrive.add_deal(moves) for moves in (0, 1, 5)]
    here.pipedrive.change(deals[2], "value", 100, 1200.5)
    here.deal_arrives(*(deal.deal_id for deal in deals))
    assert here.work() == 3
    assert stored_changes(here) == true_changes(*deals)
    assert set(
        here.rows(
            "select project_id, deal_id, pipeline_id, stage_id, status, is_deleted, added_at,"
            " is_gone from raw_pipedrive.deals"
        )
    ) == {
        (
            "deals",
            str(deal.deal_id),
            str(deal.pipeline_id),
            str(deal.stage_id),
            "open",
            False,
            deal.added_at,
            False,
        )
        for deal in deals
    }
    assert states(here.jobs) == []


def test_a_deal_is_asked_for_before_its_changes_and_with_the_token_in_a_header(
    here: Setting,
) -> None:
    here.deal_arrives(here.pipedrive.add_deal().deal_id)
    here.work()
    first, second = here.pipedrive.calls
    assert (first.path, second.path) == ("/api/v2/deals/501", "/v1/deals/501/flow")
    assert second.query == {
        "items": "dealChange",
        "all_changes": "1",
        "limit": "500",
        "start": "0",
    }
    for call in (first, second):
        assert call.headers["x-api-token"] == here.pipedrive.token
        assert here.pipedrive.token not in str(call.query)


def test_a_long_history_is_read_to_its_last_page(here: Setting) -> None:
    deal = here.pipedrive.add_deal(moves=1100)
    here.deal_arrives(deal.deal_id)
    here.work()
    assert [call.query["start"] for call in here.pipedrive.calls_of("flow")] == ["0", "500", "1000"]
    assert stored_changes(here) == true_changes(deal)


def test_a_history_without_an_end_is_not_read_for_ever(here: Setting) -> None:
    here.deal_arrives(here.pipedrive.add_deal().deal_id)
    more = {"pagination": {"more_items_in_collection": True, "next_start": 0}}
    here.pipedrive.next(Reply(body={"data": [], "additional_data": more}), path="flow")
    run_one(here.claimed(), here.jobs, here.loader, QUICK)
    assert here.state().reason == "pages of changes that go in circles"


def test_orders_are_stored_with_their_items_and_without_their_buyer(here: Setting) -> None:
    order_ids = [here.keycrm.add_order(items) for items in (0, 1, 6)]
    here.order_arrives(*order_ids)
    assert here.work() == 3

    def number(value: Any) -> Decimal | None:
        return None if value is None else Decimal(str(value))

    def text(value: Any) -> str | None:
        return None if value is None else str(value)

    expected = []
    for order_id in order_ids:
        for position, product in enumerate(here.keycrm.orders[order_id]["products"], 1):
            offer = product.get("offer", {})
            expected.append(
                (
                    "shop",
                    str(order_id),
                    position,
                    text(product.get("id")),
                    text(offer.get("product_id")),
                    text(offer.get("id")),
                    product["sku"],
                    product["name"],
                    number(product["quantity"]),
                    number(product["price_sold"]),
                    number(product["purchased_price"]),
                )
            )
    assert (
        here.rows(
            "select project_id, order_id, position, line_id, product_id, offer_id, sku, name,"
            " quantity, price_sold, purchased_price from raw_keycrm.order_items order by 2, 3"
        )
        == expected
    )
    assert here.rows(
        "select order_id, status_id, grand_total, created_at = ordered_at, is_gone"
        " from raw_keycrm.orders order by 1"
    ) == [
        (str(i), str(order["status_id"]), number(order["grand_total"]), True, False)
        for i, order in here.keycrm.orders.items()
    ]
    for call in here.keycrm.calls:
        assert call.headers["authorization"] == f"Bearer {here.keycrm.token}"
        assert call.query == {"include": "products.offer"}


def test_the_same_answer_again_writes_nothing(here: Setting) -> None:
    deal, order_id = here.pipedrive.add_deal(), here.keycrm.add_order()
    here.deal_arrives(deal.deal_id)
    here.order_arrives(order_id)
    here.work()
    before = versions(here)
    assert all(before.values())
    here.deal_arrives(deal.deal_id, sender="zapier")
    here.order_arrives(order_id)
    assert here.work() == 2
    assert versions(here) == before


def test_what_changed_is_written_and_nothing_else(here: Setting) -> None:
    moved, still = here.pipedrive.add_deal(), here.pipedrive.add_deal()
    order_id, other_id = here.keycrm.add_order(3), here.keycrm.add_order()
    here.deal_arrives(moved.deal_id, still.deal_id)
    here.order_arrives(order_id, other_id)
    here.work()
    before = versions(here)
    here.pipedrive.move(moved)
    del here.keycrm.orders[order_id]["products"][1]
    here.deal_arrives(moved.deal_id, still.deal_id, sender="zapier")
    here.order_arrives(order_id, other_id)
    here.work()
    after = versions(here)
    assert stored_changes(here) == true_changes(moved, still)
    assert set(before["deal_changes"]) < set(after["deal_changes"])
    for table, changed in (("deals", moved.deal_id), ("orders", order_id)):
        same = {row for row in before[table] if row[0] != str(changed)}
        assert set(before[table]) & set(after[table]) == same
    assert [row[0] for row in after["order_items"]] == [
        f"{order_id}/1",
        f"{order_id}/2",
        f"{other_id}/1",
        f"{other_id}/2",
    ]
    assert here.value(
        "select order_id from raw_keycrm.orders order by fetched_xid desc limit 1"
    ) == str(order_id)


def test_what_the_crm_no_longer_knows_is_marked_and_kept(here: Setting) -> None:
    deal, order_id = here.pipedrive.add_deal(), here.keycrm.add_order(2)
    here.deal_arrives(deal.deal_id, 999)
    here.order_arrives(order_id)
    here.work()
    del here.pipedrive.deals[deal.deal_id], here.keycrm.orders[order_id]
    here.deal_arrives(deal.deal_id, sender="zapier")
    here.order_arrives(order_id)
    assert here.work() == 2
    assert states(here.jobs) == []
    assert here.rows("select deal_id, stage_id, is_gone from raw_pipedrive.deals order by 1") == [
        (str(deal.deal_id), str(deal.stage_id), True),
        ("999", None, True),
    ]
    assert here.value("select is_gone from raw_keycrm.orders")
    assert here.value("select count(*) from raw_keycrm.order_items") == 2
    here.pipedrive.deals[deal.deal_id] = deal
    here.deal_arrives(deal.deal_id, sender="zapier")
    here.work()
    assert not here.value(
        "select is_gone from raw_pipedrive.deals where deal_id = %s", str(deal.deal_id)
    )


def test_an_answer_that_comes_late_does_not_replace_a_later_one(here: Setting) -> None:
    now = datetime.now(UTC)
    early = pipedrive_deals.Deal(pipedrive_deals.DealState("1", "11", "open", False, now), (), 0)
    late = replace(early, state=early.state._replace(stage_id="12"))
    for deal, asked_at in ((late, now), (early, now - timedelta(seconds=5)), (None, now)):
        if deal is not None:
            pipedrive_deals.store(here.loader, "deals", "1", deal, asked_at)
    assert here.value("select stage_id from raw_pipedrive.deals") == "12"
    state = keycrm_orders.OrderState("1", None, None, None, None, None, None, None)
    item = keycrm_orders.Item(1, None, None, None, "new", None, None, None, None)
    order = keycrm_orders.Order(state, (item,), 0)
    older = keycrm_orders.Order(state, (item._replace(sku="old"),), 0)
    keycrm_orders.store(here.loader, "shop", "1", order, now)
    keycrm_orders.store(here.loader, "shop", "1", older, now - timedelta(seconds=5))
    keycrm_orders.store(here.loader, "shop", "1", None, now - timedelta(seconds=5))
    assert here.rows("select sku from raw_keycrm.order_items") == [("new",)]
    assert not here.value("select is_gone from raw_keycrm.orders")


def test_changes_that_cannot_be_read_are_counted_and_the_others_kept(here: Setting) -> None:
    deal = here.pipedrive.add_deal(moves=3)
    here.pipedrive.change(deal, "lost_reason", None, {"not": "a value"})
    here.deal_arrives(deal.deal_id)
    with capture_logs() as logs:
        assert here.work() == 1
    assert [entry["changes"] for entry in logs if "changes" in entry] == [1]
    deal.changes.pop()
    assert stored_changes(here) == true_changes(deal)


def test_an_id_that_is_no_number_never_becomes_part_of_a_path(here: Setting) -> None:
    land(here.owner, "zapier", "pipedrive", "deals", "deal", "../users")
    assert here.work() == 1
    assert here.state().reason == "its id is not a number"
    assert here.pipedrive.calls == []


# What is planned, and when


def test_a_delivery_that_commits_late_is_planned_all_the_same(here: Setting) -> None:
    with connect("owner") as early, connect("owner") as late:
        land(early, "keycrm", "keycrm", "shop", "order", "4001")  # the lower transaction id
        land(late, "keycrm", "keycrm", "shop", "order", "4002")
        assert plan(here.jobs) == 0
        late.commit()
        assert plan(here.jobs) == 1  # not held up by the older transaction
        assert plan(here.jobs) == 0
        here.order_arrives(4003)
        assert plan(here.jobs) == 1
        early.commit()
        assert plan(here.jobs) == 1
        assert plan(here.jobs) == 0
    assert here.rows("select entity_id, requested from ops.follow_ups order by 1") == [
        ("4001", 1),
        ("4002", 1),
        ("4003", 1),
    ]


def test_in_a_dump_restored_elsewhere_what_lands_is_planned_and_what_was_planned_is_not(
    here: Setting,
) -> None:
    here.order_arrives(4001, 4002)
    assert plan(here.jobs) == 2
    # As of a server that counted further: its transactions are still to come here.
    here.owner.execute("update raw.deliveries set landed_xid = '9999999999'")
    here.owner.execute(
        "update raw.deliveries set landed_at = now() - interval '2 hours'"
        " where entity_ids = '{4001}'"
    )
    here.owner.execute(
        "update ops.follow_up_position set planned = '9999999000:9999999000:', server = 'another'"
    )
    here.order_arrives(4003)
    assert plan(here.jobs) == 2, "the new one, and once more that of the last hour"
    assert plan(here.jobs) == 0
    here.order_arrives(4004)
    assert plan(here.jobs) == 1
    assert here.rows("select entity_id, requested from ops.follow_ups order by 1") == [
        ("4001", 1),
        ("4002", 2),
        ("4003", 1),
        ("4004", 1),
    ]


def test_two_planners_at_once_plan_each_delivery_once(here: Setting) -> None:
    stop = threading.Event()

    def keep_planning() -> None:
        with connect("jobs", autocommit=True) as jobs:
            while not stop.is_set():
                plan(jobs)

    threads = [threading.Thread(target=keep_planning) for _ in range(3)]
    for thread in threads:
        thread.start()
    for number in range(200):
        here.order_arrives(number)
    stop.set()
    for thread in threads:
        thread.join()
    plan(here.jobs)
    assert here.rows("select count(*), sum(requested) from ops.follow_ups") == [(200, 200)]


def test_a_delivery_that_was_read_again_is_asked_about(here: Setting) -> None:
    deal = here.pipedrive.add_deal()
    delivery = land(here.owner, "zapier", "pipedrive", "deals", "deal")
    assert here.work() == 0
    here.owner.execute(
        "insert into raw.replays (delivery_id, entity_type, entity_ids) values (%s, 'deal', %s)",
        [delivery, [str(deal.deal_id)]],
    )
    assert here.work() == 1


def test_only_deals_and_orders_are_asked_about(here: Setting) -> None:
    land(here.owner, "hubspot", "hubspot", "deals", "deal", "1")
    land(here.owner, "keycrm", "keycrm", "shop", "lead", "1")
    assert plan(here.jobs) == 0


def test_webhooks_of_a_deal_that_was_answered_wait_and_zapier_does_not(here: Setting) -> None:
    deal = here.pipedrive.add_deal()
    here.deal_arrives(deal.deal_id)
    here.work()
    here.deal_arrives(deal.deal_id, deal.deal_id)
    assert here.work() == 0
    due_at = here.state().due_at
    assert due_at is not None
    assert 595 < (due_at - datetime.now(UTC)).total_seconds() <= 600
    here.deal_arrives(deal.deal_id, sender="zapier")
    assert here.work() == 1
    assert states(here.jobs) == []


@pytest.mark.parametrize(("sender", "runs_again"), [("zapier", 1), ("pipedrive", 0)])
def test_an_event_during_a_fetch_leads_to_another_one(
    here: Setting, sender: str, runs_again: int
) -> None:
    deal = here.pipedrive.add_deal()
    here.deal_arrives(deal.deal_id)
    with here.pipedrive.holding("flow") as gate:
        worker = threading.Thread(target=here.work)
        worker.start()
        gate.await_call()
        here.deal_arrives(deal.deal_id, sender=sender)
        with connect("jobs", autocommit=True) as jobs:
            assert plan(jobs) == 1
        gate.open()
        worker.join()
    assert len(here.pipedrive.calls_of("flow")) == 1 + runs_again
    assert len(states(here.jobs)) == 1 - runs_again  # the webhook's is due in ten minutes


def test_without_a_token_work_is_shown_and_not_tried(here: Setting) -> None:
    projects.add("keycrm", "other")
    land(here.owner, "keycrm", "keycrm", "other", "order", "1")
    assert here.work() == 0
    assert (here.state().state, here.state().attempts) == ("no token", 0)
    api_accounts.store("keycrm", "other", here.keycrm.token, here.keycrm.base_url)
    assert here.work() == 1


# What goes wrong at the CRM


@pytest.mark.parametrize(
    ("headers", "seconds"), [({"Retry-After": "40"}, 40), ({}, keycrm_orders.WAIT_UNSAID)]
)
def test_waiting_for_the_crm_spends_no_attempt_and_holds_up_nobody_else(
    here: Setting, headers: dict[str, str], seconds: float
) -> None:
    here.order_arrives(here.keycrm.add_order(), here.keycrm.add_order())
    here.deal_arrives(here.pipedrive.add_deal().deal_id)
    here.keycrm.next(Reply(429, {}, headers))
    assert here.work() == 2
    assert len(here.keycrm.calls) == 1
    waiting = states(here.jobs)
    assert [(state.state, state.attempts) for state in waiting] == [("waiting", 0)] * 2
    assert all("too many calls" in str(state.reason) for state in waiting)
    assert seconds - 5 < here.blocked_seconds("keycrm") <= seconds
    assert here.value("select count(*) from raw_pipedrive.deals") == 1


def test_a_burst_limit_is_waited_for_as_long_as_pipedrive_says(here: Setting) -> None:
    here.deal_arrives(here.pipedrive.add_deal().deal_id)
    here.pipedrive.limit = Limit(1, 50.0)
    assert here.work() == 1
    assert [call.path[:7] for call in here.pipedrive.calls] == ["/api/v2", "/v1/dea"]
    assert 45 < here.blocked_seconds("pipedrive") <= 50
    assert here.state().attempts == 0
    assert here.value("select count(*) from raw_pipedrive.deals") == 0


def test_a_daily_budget_that_is_used_up_is_waited_for(here: Setting) -> None:
    deal = here.pipedrive.add_deal()
    here.deal_arrives(deal.deal_id)
    here.order_arrives(here.keycrm.add_order())
    here.pipedrive.budget_is_used_up = True
    assert here.work() == 2
    assert 3590 < here.blocked_seconds("pipedrive") <= 3600
    assert here.state().reason == "HTTP 429: the daily budget of the CRM account is used up"
    assert here.work() == 0
    assert len(here.pipedrive.calls) == 1
    here.pipedrive.budget_is_used_up = False
    here.owner.execute("update ops.api_pace set blocked_until = now()")
    here.owner.execute("update ops.follow_ups set due_at = now() where due_at is not null")
    assert here.work() == 1
    assert stored_changes(here) == true_changes(deal)


def test_a_wall_before_the_api_is_waited_for(here: Setting) -> None:
    here.deal_arrives(here.pipedrive.add_deal().deal_id)
    here.pipedrive.next(Reply(403, WALL))
    here.work()
    assert here.state().attempts == 0
    assert 890 < here.blocked_seconds("pipedrive") <= 900


def test_what_fails_is_tried_again_and_answered(here: Setting) -> None:
    failures = [
        Reply(503, b"<html>"),
        Reply(200, None),
        Reply(200, {"success": True, "data": None}),
        Reply(breaks="at once"),
        Reply(200, {"data": {}}, breaks="within the body"),
    ]
    deal = here.pipedrive.add_deal()
    here.deal_arrives(deal.deal_id)
    here.pipedrive.next(*failures)
    rules = replace(QUICK, first_backoff=0.0)
    for attempt in range(1, len(failures) + 1):
        assert run_one(here.claimed(rules), here.jobs, here.loader, rules) == "retries"
        assert (here.state().state, here.state().attempts) == ("waiting", attempt)
    assert here.work(rules) == 1
    assert stored_changes(here) == true_changes(deal)
    assert here.rows("select attempts, last_error from ops.follow_ups") == [(0, None)]


def test_retry_after_of_a_failure_is_honoured(here: Setting) -> None:
    here.deal_arrives(here.pipedrive.add_deal().deal_id)
    here.pipedrive.next(Reply(503, b"", {"Retry-After": "300"}))
    here.work()
    due_at = here.state().due_at
    assert due_at is not None
    assert 290 < (due_at - datetime.now(UTC)).total_seconds() <= 300


def test_a_new_delivery_does_not_shorten_the_wait_after_a_failure(here: Setting) -> None:
    deal = here.pipedrive.add_deal()
    here.deal_arrives(deal.deal_id)
    here.pipedrive.next(Reply(503, b"", {"Retry-After": "300"}))
    here.work()
    here.deal_arrives(deal.deal_id, sender="zapier")
    assert here.work() == 0


def test_waits_grow_to_their_cap_and_are_spread() -> None:
    rules = Rules()
    for attempts, top in ((1, 5.0), (2, 20.0), (3, 80.0), (6, 3600.0), (8, 3600.0)):
        waits = [rules.backoff(attempts) for _ in range(400)]
        assert max(waits) <= top
        assert min(waits) < top / 10 < top * 9 / 10 < max(waits)


def test_one_that_never_works_is_given_up_with_its_reason_until_it_is_asked_for_again(
    here: Setting,
) -> None:
    deal = here.pipedrive.add_deal()
    here.deal_arrives(deal.deal_id)
    here.pipedrive.next(*[Reply(500, {})] * 6)
    rules = replace(QUICK, attempts=3)
    until(lambda: here.work(rules) + 1 and here.state().state == "gave up")
    assert len(here.pipedrive.calls) == 3
    assert (here.state().attempts, here.state().reason) == (3, "HTTP 500")
    assert here.work(rules) == 0

    assert retry(here.jobs, "keycrm_order") == 0
    assert retry(here.jobs, "pipedrive_deal", "deals", str(deal.deal_id)) == 1
    until(lambda: here.work(rules) + 1 and here.state().state == "gave up")
    assert len(here.pipedrive.calls) == 6

    here.deal_arrives(deal.deal_id)
    assert here.work(rules) == 1
    assert states(here.jobs) == []
    assert stored_changes(here) == true_changes(deal)


def test_a_wrong_token_is_tried_rarely_and_at_once_when_a_person_says_so(here: Setting) -> None:
    here.order_arrives(*(here.keycrm.add_order() for _ in range(5)))
    here.keycrm.token = "another-token"
    assert here.work() == 1
    assert here.work() == 0
    assert len(here.keycrm.calls) == 1
    assert 890 < here.blocked_seconds("keycrm") <= 900
    assert sorted(state.attempts for state in states(here.jobs)) == [0, 0, 0, 0, 1]
    assert {state.reason for state in states(here.jobs)} == {
        "HTTP 401: the API token is wrong or no longer valid"
    }
    api_accounts.store("keycrm", "shop", "another-token")
    assert retry(here.jobs) == 5
    assert here.work() == 5
    assert states(here.jobs) == []


def test_what_only_breaks_one_order_does_not_stop_the_others(here: Setting) -> None:
    order_ids = [here.keycrm.add_order() for _ in range(3)]
    here.keycrm.orders[order_ids[0]]["grand_total"] = 1e200
    here.keycrm.orders[order_ids[1]]["products"][0]["sku"] = "broken"
    here.order_arrives(*order_ids)
    here.owner.execute(
        "alter table raw_keycrm.order_items add constraint whole check (sku <> 'broken')"
    )
    try:
        assert here.work(replace(QUICK, first_backoff=60, last_backoff=60)) == 3
    finally:
        here.owner.execute("alter table raw_keycrm.order_items drop constraint whole")
    assert here.state().entity_id == str(order_ids[1])
    assert str(here.state().reason).startswith("CheckViolation in _store_items, line ")
    assert here.value("select count(*) from raw_keycrm.orders") == 2


# What goes wrong here


def work_until_killed(rules: Rules) -> None:
    """A worker process."""
    drain(threading.Event(), rules)


def started_worker(rules: Rules) -> Any:
    process = multiprocessing.get_context("spawn").Process(target=work_until_killed, args=(rules,))
    process.start()
    return process


def until(done: Callable[[], object], seconds: float = 20.0) -> None:
    """Returns once ``done()`` is true."""
    ends_at = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < ends_at, "it did not come to that in time"
        time.sleep(0.01)


def test_the_work_of_a_worker_that_is_killed_is_taken_over(here: Setting) -> None:
    deal = here.pipedrive.add_deal()
    here.deal_arrives(deal.deal_id)
    rules = replace(QUICK, lease=1.5)
    with here.pipedrive.holding("flow") as gate:
        process = started_worker(rules)
        gate.await_call()
        process.kill()
        process.join()
    assert here.state().state == "running"
    assert here.work(rules) == 0  # the lease still holds
    until(lambda: here.work(rules))
    assert stored_changes(here) == true_changes(deal)
    assert len(here.pipedrive.calls_of("flow")) == 2


def test_one_that_kills_its_workers_ends(here: Setting) -> None:
    order_id = here.keycrm.add_order()
    here.order_arrives(order_id)
    rules = replace(QUICK, lease=0.1, attempts=2)
    for _ in range(2):
        with here.keycrm.holding("order") as gate:
            process = started_worker(replace(rules, lease=0.5))
            gate.await_call()
            process.kill()
            process.join()
    until(lambda: here.work(rules) + 1 and here.state().state == "gave up")
    assert here.state().reason == "its worker died in attempt 2 of 2"
    assert len(here.keycrm.calls) == 2


def test_a_worker_that_lost_its_claim_cannot_finish_it(here: Setting) -> None:
    here.order_arrives(here.keycrm.add_order())
    late = here.claimed(replace(QUICK, lease=0.0))
    current = claim(here.jobs, "another", QUICK)
    assert current is not None
    assert (late.claim, current.claim, current.attempts) == (1, 2, 2)
    assert run_one(late, here.jobs, here.loader, QUICK) == "lost its claim"
    assert here.state().state == "running"
    here.keycrm.next(Reply(500))
    assert run_one(late, here.jobs, here.loader, QUICK) == "lost its claim"
    assert here.state().state == "running"
    assert run_one(current, here.jobs, here.loader, QUICK) == "answered"
    assert states(here.jobs) == []


def test_a_worker_comes_too_late_for_what_was_given_up(here: Setting) -> None:
    here.order_arrives(here.keycrm.add_order())
    late = here.claimed(replace(QUICK, lease=0.0))
    assert claim(here.jobs, "another", replace(QUICK, attempts=1)) is None
    assert run_one(late, here.jobs, here.loader, QUICK) == "lost its claim"
    assert here.state().state == "gave up"


def test_two_workers_at_once_claim_different_work(here: Setting) -> None:
    here.order_arrives(4001, 4002)
    plan(here.jobs)
    here.jobs.execute("set lock_timeout = '1s'")
    with connect("jobs") as other:  # has claimed, and not committed
        found = {one.entity_id for one in (claim(other, "one"), claim(here.jobs, "two")) if one}
        assert found == {"4001", "4002"}
        assert claim(here.jobs, "three") is None
        other.commit()
    assert claim(here.jobs, "three") is None


def test_two_workers_at_once_do_each_once_and_keep_the_pace_together(here: Setting) -> None:
    order_ids = [here.keycrm.add_order() for _ in range(60)]
    here.order_arrives(*order_ids)
    here.keycrm.limit = Limit(20, 1.0)
    rules = replace(QUICK, paces={"keycrm_order": Pace(19, 1.0)})
    workers = [started_worker(rules) for _ in range(2)]
    try:
        until(lambda: len(here.keycrm.calls) >= 60 and not states(here.jobs))
    finally:
        for worker in workers:
            worker.kill()
            worker.join()
    assert sorted(call.path for call in here.keycrm.calls) == [
        f"/v1/order/{order_id}" for order_id in order_ids
    ]
    assert here.keycrm.busiest(1.0) <= 20
    first, last = here.keycrm.calls[0].at, here.keycrm.calls[-1].at
    assert last - first < 60 / 19 * 1.3  # and it is used
    assert here.value("select count(*) from raw_keycrm.orders") == 60
    assert here.value("select count(distinct claimed_by) from ops.follow_ups") == 0


def test_a_database_that_goes_away_is_come_back_to(here: Setting) -> None:
    stop = threading.Event()
    worker = threading.Thread(target=drain, args=(stop, QUICK))
    worker.start()
    try:
        for _ in range(3):
            order_id = here.keycrm.add_order()
            here.order_arrives(order_id)
            until(
                partial(
                    here.rows, "select from raw_keycrm.orders where order_id = %s", str(order_id)
                )
            )
            here.owner.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity"
                " where usename in ('stageline_jobs', 'stageline_loader')"
                " and datname = current_database() and pid not in (%s, %s)",
                [here.jobs.info.backend_pid, here.loader.info.backend_pid],
            )
        until(lambda: not states(here.jobs))
    finally:
        stop.set()
        worker.join()


# Pace and claims


SHOP = Account("keycrm", "shop")


def test_slots_lie_at_even_distances_across_connections(here: Setting) -> None:
    pace = Pace(10, 1.0)
    with connect("jobs", autocommit=True) as other:
        waits = [reserve(c, SHOP, pace) for c in (here.jobs, other) * 5]
    assert waits == pytest.approx([n * 0.1 for n in range(10)], abs=0.05)


def test_slots_that_lie_close_are_taken_together_until_the_account_is_blocked(
    here: Setting,
) -> None:
    slow, quick = Pace(10, 1.0), Pace(1_000, 1.0)
    assert (slow.together, quick.together) == (1, 10)
    turns = Turns(here.jobs, SHOP, {"calls": quick})
    for _ in range(20):
        turns.wait("calls")
    assert reserve(here.jobs, SHOP, slow) == pytest.approx(0.01, abs=0.01)  # 20 of 1 ms each
    turns.wait("calls")  # of those that are taken with it, nine are left
    turns.block(ThrottledError("too many", PATIENCE + 10))
    with pytest.raises(LaterError, match="too many"):
        turns.wait("calls")


def test_a_slot_too_far_away_is_not_taken(here: Setting) -> None:
    pace = Pace(1, 1.0)
    assert reserve(here.jobs, SHOP, pace, patience=0.5) == pytest.approx(0.0, abs=0.05)
    for _ in range(3):
        with pytest.raises(BusyError) as caught:
            reserve(here.jobs, SHOP, pace, patience=0.5)
        assert 0.8 < caught.value.seconds <= 1.0


def test_a_block_holds_for_all_and_is_never_shortened(here: Setting) -> None:
    block(here.jobs, SHOP, 100, "the first reason")
    block(here.jobs, SHOP, 5, "the second reason")
    with pytest.raises(BusyError, match="the first reason") as caught:
        reserve(here.jobs, SHOP, Pace(10, 1.0))
    assert 95 < caught.value.seconds <= 100
    assert reserve(here.jobs, Account("pipedrive", "deals"), Pace(10, 1.0)) == 0.0


def test_an_account_with_much_to_do_leaves_turns_to_the_others(here: Setting) -> None:
    here.order_arrives(*(here.keycrm.add_order() for _ in range(30)))
    plan(here.jobs)
    here.deal_arrives(here.pipedrive.add_deal().deal_id)
    rules = replace(QUICK, paces={**QUICK.paces, "keycrm_order": Pace(1, 1.0)})
    order = []
    for _ in range(2):
        found = here.claimed(rules)
        order.append(found.source_system)
        run_one(found, here.jobs, here.loader, rules)
    assert order == ["keycrm", "pipedrive"]


def test_a_claim_looks_at_few_rows_of_a_long_queue(here: Setting) -> None:
    here.owner.execute(
        """
        insert into ops.follow_ups (
            kind, source_system, project_id, entity_id, delivery_id, due_at
        )
        select 'keycrm_order', 'keycrm', 'shop', n::text, gen_random_uuid(), now()
        from generate_series(1, 50000) as n
        """
    )
    here.owner.execute("analyze ops.follow_ups")
    started = time.monotonic()
    found = {here.claimed().entity_id for _ in range(20)}
    assert len(found) == 20
    assert time.monotonic() - started < 2.0


def test_logs_name_the_delivery_and_nothing_that_is_private(here: Setting) -> None:
    order_id = here.keycrm.add_order()
    delivery_id = land(here.owner, "keycrm", "keycrm", "shop", "order", str(order_id))
    here.keycrm.next(Reply(500, {"message": "+380501112233"}))
    rules = replace(QUICK, first_backoff=0.0)
    with capture_logs() as logs:
        assert here.work(rules) == 2
    assert [(entry["outcome"], entry["attempt"]) for entry in logs] == [
        ("retries", 1),
        ("answered", 2),
    ]
    for entry in logs:
        assert entry["delivery_id"] == str(delivery_id)
        assert (entry["kind"], entry["entity_id"]) == ("keycrm_order", str(order_id))
        assert entry["seconds"] < 5
    for private in (here.keycrm.token, "+380501112233", "Olena", here.keycrm.url):
        assert private not in str(logs)


def test_a_worker_is_done_before_its_lease_ends() -> None:
    assert Rules().deadline + sum(Rules().patience) < Rules().lease
