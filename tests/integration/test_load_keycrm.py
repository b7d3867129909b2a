"""Loads of KeyCRM: what its account holds is what is loaded, whatever happens meanwhile."""

import json
import random
from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from loaders import keycrm, keycrm_orders
from loaders.accounts import chosen
from loaders.calls import Turns
from loaders.crm import BACKFILL, check
from loaders.keycrm_tables import ORDER_ITEMS, ORDER_SOURCES, ORDER_STATUSES, ORDERS, USERS
from loaders.pace import CALLS, Account, Pace
from loaders.records import rejects_of
from loaders.sources import Pull
from stageline import config
from stageline.crm_values import instant
from stageline.database import connect
from stageline.errors import StagelineError
from stageline.settings import encryption
from stageline.settings.dictionaries import STAGES
from tests.conftest import TEMPLATE, TestServer, _clone
from tests.crm_loads import (
    SEEDS,
    begin_load,
    end_sessions,
    kill_some_time,
    load_now,
    loose_ends,
    rows,
    set_up,
)
from tests.fakes.crm_server import Limit, Reply
from tests.fakes.keycrm import FakeKeycrm

TABLES = (ORDERS, ORDER_ITEMS, ORDER_STATUSES, ORDER_SOURCES, USERS)
#: What a load lists before it comes to the orders, and what a sweep does.
BEFORE = 3


@pytest.fixture(scope="module", autouse=True)
def shared_database(server: TestServer, short_folder: Path) -> Iterator[None]:
    """One database for this module: a copy for each test would take longer than the tests."""
    folder = short_folder / "load_keycrm"
    folder.mkdir()
    with pytest.MonkeyPatch.context() as patch, _clone(server, TEMPLATE, folder, patch):
        patch.setenv("STAGELINE_SECRET_KEY", encryption.new_key())
        config.settings.cache_clear()
        yield


@pytest.fixture
def shop(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeKeycrm]:
    """The fake of the only project of an empty database."""
    with FakeKeycrm(limit=None) as fake:
        with connect("owner") as session:
            session.execute(
                "truncate settings.projects, ops.load_positions, ops.api_pace, ops.loads,"
                " raw_keycrm.orders, raw_keycrm.order_items, raw_keycrm.order_changes,"
                " raw_keycrm.order_statuses, raw_keycrm.order_sources, raw_keycrm.users,"
                " raw_keycrm.rejects cascade"
            )
        set_up(monkeypatch, "keycrm", fake)
        yield fake


def number(value: Any) -> Decimal | None:
    return None if value is None else Decimal(str(value))


def text(value: Any) -> str | None:
    return None if value is None else str(value)


def true_order(order: dict[str, Any]) -> tuple[Any, ...]:
    return (
        text(order["id"]),
        text(order["status_id"]),
        text(order["status_group_id"]),
        text((order["manager"] or {}).get("id")),
        text(order["buyer"]["id"]),
        order["payment_status"],
        (order["marketing"] or {}).get("utm_source"),
        number(order["grand_total"]),
        number(order["shipping_price"]),
        len(order["products"]),
        instant(order["created_at"]),
        instant(order["ordered_at"]),
        instant(order["updated_at"]),
        instant(order["status_changed_at"]),
        instant(order["closed_at"]),
    )


def stored_order(row: dict[str, Any]) -> tuple[Any, ...]:
    names = (
        "order_id status_id status_group_id manager_id buyer_id payment_status utm_source"
        " grand_total shipping_price item_count created_at ordered_at updated_at"
        " status_changed_at closed_at"
    )
    return tuple(row[name] for name in names.split())


def assert_is_true(shop: FakeKeycrm, *, known: bool = True) -> None:
    """What is loaded is what the account holds; with ``known`` each gone order is known as gone."""
    stored = rows(ORDERS)
    there = [stored_order(row) for row in stored if not row["is_gone"]]
    assert len({row["order_id"] for row in stored}) == len(stored)
    truth = {true_order(order) for order in shop.orders.values()}
    assert truth <= set(there)
    if known:
        assert set(there) == truth
    lines = {
        (row["order_id"], row["position"], row["line_id"], row["sku"], row["price_sold"])
        for row in rows(ORDER_ITEMS)
        if int(row["order_id"]) in shop.orders
    }
    assert lines == {
        (text(order["id"]), place, text(line.get("id")), line["sku"], number(line["price_sold"]))
        for order in shop.orders.values()
        for place, line in enumerate(order["products"], 1)
    }


def changes() -> dict[str, list[tuple[Any, ...]]]:
    """Order and field -> old value, new value and instant, in the order in which it was seen."""
    found = defaultdict(list)
    with connect("loader") as session:
        for order_id, field, *change in session.execute(
            "select order_id, field, old_value, new_value, changed_at, is_dated"
            " from raw_keycrm.order_changes order by change_id"
        ):
            found[f"{order_id} {field}"].append(tuple(change))
    return found


def assert_history_is_true(shop: FakeKeycrm, seen: dict[int, list[tuple[str, datetime]]]) -> None:
    """History joins without a gap up to the present; every stage of it was, and once.

    Args:
        shop: The truth.
        seen: Order -> its stages at the ends of loads, which must all be there.
    """
    found = changes()
    for what, steps in found.items():
        assert steps[0][0] is None, what
        assert all(a[1] == b[0] for a, b in pairwise(steps)), what
    for order_id, order in shop.orders.items():
        for field, value in (
            ("stage", text(order["status_id"])),
            ("payment_status", order["payment_status"]),
            ("owner", text((order["manager"] or {}).get("id"))),
        ):
            last = found.get(f"{order_id} {field}", [(None, None)])[-1]
            assert last[1] == value, (order_id, field)
        amount = found[f"{order_id} amount"][-1][1]
        assert number(amount) == number(order["grand_total"])
    for order_id, moves in shop.moves.items():
        steps = found.get(f"{order_id} stage", [])
        dated = [(new, at) for _, new, at, is_dated in steps if is_dated]
        assert len(set(dated)) == len(dated)
        assert set(dated) <= {(str(stage), at) for stage, at in moves}
        assert set(seen.get(order_id, [])) <= set(dated)


def moved_stages(shop: FakeKeycrm) -> Iterator[tuple[int, tuple[str, datetime]]]:
    """Where the orders are that have ever moved."""
    for order_id, order in shop.orders.items():
        at = instant(order["status_changed_at"])
        if at is not None:
            yield order_id, (str(order["status_id"]), at)


def versions() -> dict[str, list[str]]:
    return {table.name: sorted(row["written_by"] for row in rows(table)) for table in TABLES}


def test_a_first_load_brings_open_orders_and_those_that_changed_lately(shop: FakeKeycrm) -> None:
    shop.populate(160)
    old = [shop.add_order(1, datetime.now(UTC) - timedelta(days=200)) for _ in range(3)]
    shop.move(old[0], 51, datetime.now(UTC) - timedelta(days=150))
    done = load_now("keycrm")
    assert done.stopped is None
    assert done.left_out == {}
    assert loose_ends("keycrm") == []
    since = datetime.now(UTC) - timedelta(days=90)
    expected = {
        order_id: order
        for order_id, order in shop.orders.items()
        if order["status_group_id"] not in (5, 6)
        or any((instant(order[at]) or since) >= since for at in ("updated_at", "ordered_at"))
    }
    assert old[0] not in expected
    assert old[1] in expected
    assert {stored_order(row) for row in rows(ORDERS)} == {
        true_order(order) for order in expected.values()
    }
    assert len(rows(USERS)) == len(rows(ORDER_SOURCES)) == 1
    stages = {stage.stage_id: stage for stage in STAGES.entries("keycrm", "main")}
    assert set(stages) == {str(each) for each in shop.statuses if each != 13}
    assert (stages["31"].name, stages["31"].group_id) == ("Виробництво", "3")
    assert [stages["51"].is_closing, stages["41"].is_closing] == [True, False]
    assert all("right-token" not in str(call.query) for call in shop.calls)
    columns = str(rows(ORDERS))
    assert "Olena" not in columns
    assert "+380" not in columns


def test_a_load_that_finds_nothing_new_writes_nothing(shop: FakeKeycrm) -> None:
    shop.populate(30)
    load_now("keycrm")
    before, calls = versions(), len(shop.calls)
    done = load_now("keycrm")
    assert versions() == before
    assert sum(table.touched for table in done.tables.values()) == 0
    assert len(shop.calls) - calls == BEFORE + 2
    load_now("keycrm", is_full=True)
    assert versions() == before


def test_loads_that_begin_within_a_second_each_bring_what_is_new(shop: FakeKeycrm) -> None:
    """A clock that stands still is what a quick load sees of its second."""
    shop.populate(3)
    orders = next(each for each in keycrm.SOURCE.resources if each.name == "orders")
    (only,) = chosen("keycrm", "main")
    until = datetime.now(UTC).replace(microsecond=0)
    position = None
    with connect("jobs", autocommit=True) as jobs:
        turns = Turns(jobs, Account("keycrm", "main"), {CALLS: Pace(1_000_000, 60.0)})
        with (calls := keycrm.SOURCE.open(turns, only.account)).api:
            for _ in range(3):
                new = shop.add_order(created_at=until)
                pages = list(orders.pull(Pull("main", calls, until, until - BACKFILL), position))
                found = {order["id"] for page in pages for order in page.records.get(ORDERS, ())}
                assert new in found
                position = pages[-1].position


def test_what_changed_is_brought_with_what_it_was(shop: FakeKeycrm) -> None:
    shop.populate(60, days=80)
    load_now("keycrm")
    moved, paid, edited, back = list(shop.orders)[:4]
    status = shop.orders[back]["status_id"]
    came = instant(shop.orders[back]["status_changed_at"])
    shop.move(moved)
    shop.pay(paid)
    shop.price(paid)
    for _ in range(3):
        shop.edit_items(edited)
    shop.move(back, 20 if status != 20 else 12)
    shop.move(back, status)
    new = shop.add_order(created_at=datetime.now(UTC))
    calls = len(shop.calls)
    load_now("keycrm")
    assert len(shop.calls) - calls == BEFORE + 2
    assert_is_true(shop)
    found = changes()
    assert found[f"{moved} stage"][-1][1] == str(shop.orders[moved]["status_id"])
    assert found[f"{paid} payment_status"][-1][:2] == (
        "not_paid",
        shop.orders[paid]["payment_status"],
    )
    assert len(found[f"{paid} amount"]) == 2
    if came is not None:
        assert found[f"{back} stage"][-1][:2] == (str(status), str(status))
    assert found[f"{new} stage"][-1][3] is False
    assert_history_is_true(shop, {})


def test_fields_of_an_account_of_its_own_are_kept(shop: FakeKeycrm) -> None:
    first, other, odd = (shop.add_order() for _ in range(3))
    load_now("keycrm")
    kept = {int(row["order_id"]): json.loads(row["custom_fields"]) for row in rows(ORDERS)}
    assert kept[first] == {"OR_1001": "North", "Sizes": ["S", "L"]}
    added = {"id": 9, "uuid": "OR_1009", "name": "New", "type": "number", "value": 7}
    shop._change(other, custom_fields=[added])
    shop._change(odd, custom_fields="as nobody knows it")
    load_now("keycrm")
    kept = {int(row["order_id"]): json.loads(row["custom_fields"]) for row in rows(ORDERS)}
    assert (kept[other], kept[odd]) == ({"OR_1009": 7}, "as nobody knows it")


def test_pages_that_move_while_they_are_read_lose_no_order(shop: FakeKeycrm) -> None:
    shop.populate(300, days=60)
    load_now("keycrm")
    for order_id in shop.orders:
        shop.price(order_id)
    chance = random.Random(5)  # noqa: S311 - no secret

    def lose_some() -> None:
        for order_id in sorted(shop.orders)[: chance.choice([0, 1, 3, 20])]:
            shop.delete(order_id)

    shop.between_pages = lose_some
    load_now("keycrm")
    shop.between_pages = lambda: None
    assert len(shop.orders) > 150
    assert_is_true(shop, known=False)


def test_orders_that_are_gone_are_found_and_missed_ones_are_fetched(
    shop: FakeKeycrm, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.populate(120, days=80)
    load_now("keycrm")
    gone = list(shop.orders)[5]
    shop.delete(gone)
    # Ordered long ago, entered now, never changed: no range of time holds it.
    missed = shop.add_order(created_at=datetime.now(UTC) - timedelta(days=5))
    shop.statuses[20]["is_active"] = False
    load_now("keycrm")
    assert not any(row["is_gone"] for row in rows(ORDERS))
    with connect("owner") as session:
        session.execute(
            "update ops.load_positions set position = jsonb_build_object('at', now() - '2 d'"
            "::interval) where resource like 'sweep%'"
        )
    done = load_now("keycrm")
    assert done.tables["orders"].gone == 1
    found = {row["order_id"]: row for row in rows(ORDERS)}
    assert found[str(gone)]["is_gone"]
    assert found[str(gone)]["gone_seen_at"] is not None
    assert str(missed) in found
    assert_is_true(shop)
    statuses = {row["status_id"]: row["is_gone"] for row in rows(ORDER_STATUSES)}
    assert (statuses["20"], statuses["12"]) == (True, False)
    stages = {stage.stage_id: stage for stage in STAGES.entries("keycrm", "main")}
    assert (stages["20"].is_active, stages["20"].name) == (False, "Передзвонити")
    monkeypatch.undo()


def test_an_order_is_one_whoever_reads_it(shop: FakeKeycrm) -> None:
    shop.populate(5, days=30)
    first, second, *_ = shop.orders
    now = datetime.now(UTC)
    with connect("loader", autocommit=True) as session:
        # Read by follow-ups before the first load, and by one that was asked later than a load's.
        for order_id in (first, second):
            answer = keycrm_orders.read_order(shop.orders[order_id], str(order_id))
            keycrm_orders.store(session, "main", str(order_id), answer, now)
        load_now("keycrm")
        assert_is_true(shop)
        shop.move(first)
        shop.edit_items(first)
        shop.move(second)
        answer = keycrm_orders.read_order(shop.orders[first], str(first))
        keycrm_orders.store(session, "main", str(first), answer, datetime.now(UTC))
        later = now + timedelta(minutes=5)
        before = keycrm_orders.read_order(shop.orders[second], str(second))
        newest = before.state._replace(status_id="41", updated_at=later)
        keycrm_orders.store(session, "main", str(second), keycrm_orders.Order(newest, (), 0), later)
    load_now("keycrm")
    found = {row["order_id"]: row for row in rows(ORDERS)}
    assert found[str(second)]["status_id"] == "41"
    assert not [row for row in rows(ORDER_ITEMS) if row["order_id"] == str(second)]
    assert stored_order(found[str(first)]) == true_order(shop.orders[first])
    before_again = versions()
    load_now("keycrm")
    assert versions()["orders"] == before_again["orders"]


def test_limits_are_waited_out(shop: FakeKeycrm) -> None:
    shop.populate(100)
    shop.limit = Limit(4, 0.2)
    shop.next(Reply(503, {}), Reply(breaks="within the body"), path="/order$")
    done = load_now("keycrm")
    assert done.stopped is None
    assert_is_true_of_what_is_open(shop)


def assert_is_true_of_what_is_open(shop: FakeKeycrm) -> None:
    there = {stored_order(row) for row in rows(ORDERS)}
    truth = {
        true_order(order)
        for order in shop.orders.values()
        if order["status_group_id"] not in (5, 6)
    }
    assert truth <= there


def test_a_limit_that_lasts_ends_the_load_and_the_next_one_goes_on(shop: FakeKeycrm) -> None:
    shop.populate(300, days=60)
    shop.limit = Limit(12, 3600.0)
    done = load_now("keycrm")
    shop.limit = None
    assert done.stopped is not None
    some = len(rows(ORDERS))
    assert 0 < some < 300
    with connect("owner", autocommit=True) as session:
        session.execute("update ops.api_pace set blocked_until = '-infinity'")
    calls = len(shop.calls)
    assert load_now("keycrm").stopped is None
    first = next(call for call in shop.calls[calls:] if call.path == "/v1/order")
    assert first.query["page"] != "1"
    assert_is_true(shop)


def test_what_does_not_fit_is_kept_as_it_came_and_what_is_not_open_left_out(
    shop: FakeKeycrm,
) -> None:
    shop.populate(3, days=20)
    first, second, _ = shop.orders
    shop.orders[first]["grand_total"] = {"amount": 5}
    shop.orders[second]["products"] = ["no object", {"name": "Kiosk", "quantity": "many"}]
    shop.next(Reply(403, {"message": "Forbidden"}), path="/users")
    nameless = shop.orders[first] | {"id": None}
    page = {"total": 1, "per_page": 50, "data": [nameless], "next_page_url": None}
    shop.next(Reply(body=page), path="/order$")
    done = load_now("keycrm")
    assert list(done.left_out) == ["users"]
    assert done.tables["orders"].rejected == 1
    rejected = {row["table_name"]: row["record"] for row in rows(rejects_of("raw_keycrm"))}
    assert '"buyer": {"id": 910}' in rejected["orders"]
    assert not any(word in rejected["orders"] for word in ("Olena", "+380", "call back"))
    assert list(done.tables["orders"].unreadable) == ["grand_total"]
    found = {row["order_id"]: row for row in rows(ORDERS)}
    assert found[str(first)]["unreadable"] == '{"grand_total": {"amount": 5}}'
    lines = [row for row in rows(ORDER_ITEMS) if row["order_id"] == str(second)]
    assert sorted((row["position"], row["unreadable"]) for row in lines) == [
        (1, None),
        (2, '{"quantity": "many"}'),
    ]


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (Reply(401, {"message": "Unauthenticated."}), "token is wrong"),
        (Reply(404, b"<html>nginx</html>"), "base URL"),
        (Reply(422, {"message": "invalid"}), "does not take the question"),
    ],
)
def test_a_refused_account_is_one_clear_line(shop: FakeKeycrm, reply: Reply, words: str) -> None:
    shop.populate(3)
    shop.next(reply)
    with pytest.raises(StagelineError, match=words) as caught:
        load_now("keycrm")
    assert "\n" not in str(caught.value)
    assert rows(ORDERS) == []


@pytest.mark.parametrize("seed", SEEDS)
def test_whatever_happens_what_is_loaded_is_the_truth(shop: FakeKeycrm, seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311 - no secret
    shop.populate(90, days=80)
    seen: dict[int, list[tuple[str, datetime]]] = defaultdict(list)
    shop.between_pages = lambda: shop.change_something() if chance.random() < 0.3 else None
    for _ in range(3):
        for _ in range(chance.randrange(12)):
            shop.change_something()
        match chance.choice(["load", "load", "kill", "sessions"]):
            case "load":
                load_now("keycrm")
            case "kill":
                kill_some_time(begin_load("keycrm"), chance, 2.5)
            case "sessions":
                child = begin_load("keycrm")
                end_sessions()
                child.communicate()
    shop.between_pages = lambda: None
    for is_full in (False, True):
        for _ in range(15):
            shop.change_something()
        load_now("keycrm", is_full=is_full)
        for order_id, stage in moved_stages(shop):
            seen[order_id].append(stage)
    assert_is_true(shop)
    assert_history_is_true(shop, seen)


def test_trying_an_account_says_what_it_opens(shop: FakeKeycrm) -> None:
    (only,) = chosen("keycrm", "main")
    shop.next(Reply(403, {}), path="/users")
    findings = check(keycrm.SOURCE, "main", only.account)
    assert {each.resource: each.problem is None for each in findings} == {
        "statuses": True,
        "sources": True,
        "users": False,
        "orders": True,
    }
