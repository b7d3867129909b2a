"""What is fetched ahead comes in order, whole, and only so far ahead."""

import threading
import time
from collections.abc import Iterator
from functools import partial

import pytest

from loaders.ahead import ahead, at_once


def test_items_come_in_their_order_and_all_of_them() -> None:
    assert list(ahead(iter(range(5_000)), lambda _: 1, 10)) == list(range(5_000))
    assert list(ahead(iter([]), lambda _: 1, 10)) == []


def test_what_comes_before_an_error_comes_and_then_the_error() -> None:
    def failing() -> Iterator[int]:
        yield from range(3)
        raise KeyError("here")

    items = ahead(failing(), lambda _: 1, 10)
    assert [next(items) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(KeyError, match="here"):
        next(items)


def test_no_more_is_fetched_than_may_wait() -> None:
    fetched: list[int] = []

    def sized() -> Iterator[int]:
        for each in range(100):
            fetched.append(each)
            yield each

    items = ahead(sized(), lambda _: 10, 30)
    assert next(items) == 0
    time.sleep(0.2)
    # three wait, and the next one is fetched before it is known that there is no room for it
    assert len(fetched) <= 5
    assert list(items) == list(range(1, 100))


def test_it_is_fetched_while_what_came_is_worked_on() -> None:
    came = threading.Event()

    def items() -> Iterator[int]:
        yield 1
        yield 2
        came.set()

    got = ahead(items(), lambda _: 1, 10)
    assert next(got) == 1
    assert came.wait(10), "the second item was not fetched until it was asked for"


def test_nothing_more_is_fetched_once_nobody_reads() -> None:
    fetched: list[int] = []

    def endless() -> Iterator[int]:
        while True:
            fetched.append(1)
            yield 1

    items = ahead(endless(), lambda _: 1, 3)
    next(items)
    items.close()
    count = len(fetched)
    time.sleep(0.1)
    assert len(fetched) == count


def test_outcomes_come_in_the_order_of_the_items_whichever_is_ready_first() -> None:
    def slow_then_fast(item: int) -> int:
        time.sleep(0.02 if item % 3 == 0 else 0.0)
        return item * 10

    ways = [slow_then_fast] * 3
    assert list(at_once(iter(range(30)), ways)) == [each * 10 for each in range(30)]
    assert list(at_once(iter([]), ways)) == []


def test_as_many_items_are_worked_on_at_once_as_there_are_ways() -> None:
    together = threading.Barrier(3, timeout=10)
    assert len(list(at_once(iter(range(6)), [lambda _: together.wait()] * 3))) == 6


def test_a_way_works_on_one_item_at_a_time_and_items_are_taken_by_one_thread_at_a_time() -> None:
    taking, busy = threading.Lock(), [threading.Lock() for _ in range(4)]

    def items() -> Iterator[int]:
        for each in range(200):
            assert taking.acquire(blocking=False)
            time.sleep(0.0001)
            taking.release()
            yield each

    def way(lock: threading.Lock, item: int) -> int:
        assert lock.acquire(blocking=False)
        time.sleep(0.0001)
        lock.release()
        return item

    assert list(at_once(items(), [partial(way, lock) for lock in busy])) == list(range(200))


@pytest.mark.parametrize("fails", ["items", "way"])
def test_what_comes_before_an_error_of_the_items_or_of_a_way_comes_and_then_the_error(
    fails: str,
) -> None:
    worked_on: list[int] = []

    def items() -> Iterator[int]:
        yield from range(5)
        if fails == "items":
            raise KeyError("here")
        yield from range(5, 1_000)

    def way(item: int) -> int:
        worked_on.append(item)
        if fails == "way" and item == 5:
            raise KeyError("here")
        return item

    outcomes = at_once(items(), [way, way])
    assert [next(outcomes) for _ in range(5)] == [0, 1, 2, 3, 4]
    with pytest.raises(KeyError, match="here"):
        next(outcomes)
    count = len(worked_on)
    time.sleep(0.1)
    assert len(worked_on) == count < 20


def test_hardly_more_items_are_taken_than_are_asked_for() -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for each in range(100):
            taken.append(each)
            yield each

    outcomes = at_once(items(), [lambda item: item] * 2)
    assert next(outcomes) == 0
    time.sleep(0.2)
    assert len(taken) <= 5
    outcomes.close()
    count = len(taken)
    time.sleep(0.1)
    assert len(taken) == count
