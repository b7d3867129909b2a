"""Lets what is slow to come be fetched while what has come is worked on."""

import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

_Item = TypeVar("_Item")

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
