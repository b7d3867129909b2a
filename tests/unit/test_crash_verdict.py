"""The judgement of the crash harness finds each kind of fault, and none where there is none."""

import random
from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.crash import verdict
from tests.crash.ledger import Ledger
from tests.crash.verdict import Faults, Stored, StoredEvent, StoredOrder
from tests.fakes.keycrm import FakeKeycrm


@pytest.fixture
def ledger() -> Ledger:
    """Three deliveries of one order, of which the last was not acknowledged."""
    ledger = Ledger(FakeKeycrm(limit=None), orders=1)
    for number in (1, 2, 3):
        delivery = ledger.new(random.Random(number))  # noqa: S311 - no secret
        delivery.acknowledged_as = f"id {number}" if number < 3 else None
    return ledger


@pytest.fixture
def stored(ledger: Ledger) -> Stored:
    """All as it should be: three deliveries, and the order as it was after the last one."""
    deliveries = ledger.deliveries()
    order_id = deliveries[0].order_id
    return Stored(
        deliveries=[(f"id {each.number}", each.digest) for each in deliveries],
        events=[StoredEvent(each.event, f"id {each.number}") for each in deliveries],
        asked={order_id: 3},
        orders={order_id: StoredOrder(3, frozenset({3}))},
    )


def judged(ledger: Ledger, stored: Stored) -> Faults:
    faults = Faults()
    verdict.judge_deliveries(ledger.deliveries(), stored, faults)
    verdict.judge_follow_ups(ledger.deliveries(), ledger.latest(), stored, faults)
    return faults


def with_order(stored: Stored, number: int, *item_numbers: int) -> Stored:
    (order_id,) = stored.orders
    return replace(stored, orders={order_id: StoredOrder(number, frozenset(item_numbers))})


def test_there_is_no_fault_where_all_is_right(ledger: Ledger, stored: Stored) -> None:
    assert not judged(ledger, stored)


def test_what_was_not_acknowledged_may_be_missing(ledger: Ledger, stored: Stored) -> None:
    (order_id,) = stored.orders
    without = replace(
        stored, deliveries=stored.deliveries[:2], events=stored.events[:2], asked={order_id: 2}
    )
    for number in (2, 3):  # the order may have been asked for before it changed again, or after
        assert not judged(ledger, with_order(without, number, number))


@pytest.mark.parametrize(
    ("fault", "broken"),
    [
        (verdict.LOST, lambda s: replace(s, deliveries=s.deliveries[1:], events=s.events[1:])),
        (
            verdict.LOST,  # other bytes than those that were sent
            lambda s: replace(s, deliveries=[("id 1", "0" * 64), *s.deliveries[1:]]),
        ),
        (
            verdict.ELSEWHERE,
            lambda s: replace(s, deliveries=[("id 9", s.deliveries[0][1]), *s.deliveries[1:]]),
        ),
        (
            verdict.TWICE,
            lambda s: replace(s, deliveries=[*s.deliveries, ("id 9", s.deliveries[0][1])]),
        ),
        (
            verdict.NEVER_SENT,
            lambda s: replace(s, deliveries=[*s.deliveries, ("id 9", "0" * 64)]),
        ),
        (verdict.EVENT_MISSING, lambda s: replace(s, events=s.events[1:])),
        (
            verdict.EVENT_MISSING,  # there, but of another delivery
            lambda s: replace(s, events=[replace(s.events[0], delivery_id="id 2"), *s.events[1:]]),
        ),
        (verdict.EVENT_TWICE, lambda s: replace(s, events=[*s.events, s.events[0]])),
        (verdict.EVENT_NEVER_SENT, lambda s: replace(s, deliveries=s.deliveries[:2])),
        (verdict.NOT_ASKED, lambda s: replace(s, asked={})),
        (verdict.NOT_ASKED, lambda s: replace(s, asked={next(iter(s.asked)): 4})),
        (verdict.NOT_FETCHED, lambda s: replace(s, orders={})),
        (verdict.NOT_TRUE, lambda s: with_order(s, 2, 2)),
        (verdict.NOT_TRUE, lambda s: with_order(s, 4, 4)),
        (verdict.NOT_TRUE, lambda s: with_order(s, 3, 2, 3)),
    ],
)
def test_a_fault_is_found(
    ledger: Ledger, stored: Stored, fault: str, broken: Callable[[Stored], Stored]
) -> None:
    faults = judged(ledger, broken(stored))
    assert faults.count(fault) == 1, faults.lines()
