"""Lets what is slow to come be fetched while what has come is worked on."""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from typing import Generic, TypeVar

_Item = TypeVar("_Item")
_Outcome = TypeVar("_Outcome")

#: Seconds that a fetch under way is waited for when nobody wants its outcome any longer.
_PATIENCE = 2.0


def ahead(items: Iterator[_Item], size: Callable[[_Item], int], most: int) -> Iterator[_Item]:
    """The same items in the same order, fetched in a thread of their own.

    Args:
        items: Nobody else may use it, nor what it uses, until the end.
        size: What an item counts for.
        most: Sizes that may wait together before no more is fetched.

    Raises:
        BaseException: what ``items`` raises, after what came before it.
    """
    fetched = _Fetched(items, size, most)
    try:
        yield from fetched
    finally:
        fetched.end()


class _Fetched(Generic[_Item]):
    def __init__(self, items: Iterator[_Item], size: Callable[[_Item], int], most: int) -> None:
        self._items, self._size, self._most = items, size, most
        self._waiting: deque[_Item] = deque()
        self._size_waiting = 0
        self._is_over = self._is_whole = False
        self._error: BaseException | None = None
        self._changed = threading.Condition()
        # A daemon: a process that is told to stop does not wait for an answer of minutes.
        self._thread = threading.Thread(target=self._fetch, daemon=True)
        self._thread.start()

    def __iter__(self) -> Iterator[_Item]:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._is_whole)
                if not self._waiting:
                    break
                item = self._waiting.popleft()
                self._size_waiting -= self._size(item)
                self._changed.notify()
            yield item
        if self._error is not None:
            raise self._error

    def end(self) -> None:
        """Lets nothing more be fetched."""
        with self._changed:
            self._is_over = True
            self._changed.notify()
        self._thread.join(_PATIENCE)

    def _fetch(self) -> None:
        try:
            for item in self._items:
                with self._changed:
                    self._waiting.append(item)
                    self._size_waiting += self._size(item)
                    self._changed.notify()
                    self._changed.wait_for(lambda: self._is_over or self._size_waiting < self._most)
                    if self._is_over:
                        return
        except BaseException as error:  # noqa: BLE001 - whoever reads the items is to have it
            self._error = error
        finally:
            with self._changed:
                self._is_whole = True
                self._changed.notify()


def at_once(
    items: Iterator[_Item], ways: Sequence[Callable[[_Item], _Outcome]]
) -> Iterator[_Outcome]:
    """What the ways make of the items, in the order of the items; each way in a thread of its own.

    Args:
        items: Are taken by one thread at a time, whenever a way is free, and hardly ahead of
            what is asked for here. Nobody else may use it, nor what it uses, until the end.
        ways: Of making the same of an item. What one uses no other one may use.

    Raises:
        BaseException: what ``items`` or a way raises, after what came before it.
    """
    work = _Work(items, ways)
    try:
        yield from work
    finally:
        work.end()


class _Work(Generic[_Item, _Outcome]):
    def __init__(self, items: Iterator[_Item], ways: Sequence[Callable[[_Item], _Outcome]]) -> None:
        self._items, self._most = items, 2 * len(ways)
        self._is_over = False
        self._waiting: deque[Future[_Outcome]] = deque()
        self._taking, self._changed = threading.Lock(), threading.Condition()
        # Daemons, as above.
        self._threads = [threading.Thread(target=self._go, args=[way], daemon=True) for way in ways]
        for thread in self._threads:
            thread.start()

    def __iter__(self) -> Iterator[_Outcome]:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._is_over)
                if not self._waiting:
                    return
            yield self._waiting[0].result()
            with self._changed:
                self._waiting.popleft()
                self._changed.notify_all()

    def end(self) -> None:
        """Lets nothing more be taken."""
        with self._changed:
            self._is_over = True
            self._changed.notify_all()
        until = time.monotonic() + _PATIENCE
        for thread in self._threads:
            thread.join(max(until - time.monotonic(), 0.0))

    def _go(self, way: Callable[[_Item], _Outcome]) -> None:
        while (taken := self._take()) is not None:
            item, outcome = taken
            try:
                outcome.set_result(way(item))
            except BaseException as error:  # noqa: BLE001 - whoever reads the outcomes is to have it
                outcome.set_exception(error)

    def _take(self) -> tuple[_Item, Future[_Outcome]] | None:
        """The next item, and where its outcome goes; None where there is nothing more to do."""
        with self._taking:
            with self._changed:
                self._changed.wait_for(lambda: self._is_over or len(self._waiting) < self._most)
                if self._is_over:
                    return None
            outcome: Future[_Outcome] = Future()
            try:
                item = next(self._items)
            except BaseException as error:  # noqa: BLE001 - whoever reads the outcomes is to have it
                with self._changed:
                    if not isinstance(error, StopIteration):
                        outcome.set_exception(error)
                        self._waiting.append(outcome)
                    self._is_over = True
                    self._changed.notify_all()
                return None
            with self._changed:
                self._waiting.append(outcome)
                self._changed.notify_all()
            return item, outcome
