"""What is fetched ahead comes in order, whole, and only so far ahead."""

import threading
import time
from collections.abc import Iterator

import pytest

from loaders.ahead import ahead


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
