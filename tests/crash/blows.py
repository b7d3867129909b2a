"""Blows at random moments, each kind in its turn."""

import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

#: Something that happens to a part, and is over when the part is at work again. What it leaves to
#: chance, it draws from what it is given.
Blow = Callable[[random.Random], None]


class Deck:
    """Kinds of blows at one part, dealt like cards: each comes once before any comes again.

    Args:
        blows: Kind -> what does it.
        chance: For the order.
    """

    def __init__(self, blows: Mapping[str, Blow], chance: random.Random) -> None:
        self._blows, self._chance = blows, chance
        self._left: list[str] = []

    def draw(self) -> tuple[str, Blow]:
        """The next kind, and what does it."""
        if not self._left:
            self._left = self._chance.sample(sorted(self._blows), len(self._blows))
        kind = self._left.pop()
        return kind, self._blows[kind]


class Tormentor(threading.Thread):
    """Deals one blow after the other until it is told to stop.

    Attributes:
        dealt: How many blows of each kind there were.

    Args:
        deck: Where they come from.
        pause: Least and most seconds between two blows.
        chance: For the moments, and for the blows.
    """

    def __init__(self, deck: Deck, pause: tuple[float, float], chance: random.Random) -> None:
        super().__init__(daemon=True)
        self.dealt: Counter[str] = Counter()
        self._deck, self._pause, self._chance = deck, pause, chance
        self._enough = threading.Event()
        self._error: BaseException | None = None

    def run(self) -> None:
        while not self._enough.wait(self._chance.uniform(*self._pause)):
            kind, blow = self._deck.draw()
            try:
                blow(self._chance)
            except BaseException as error:  # noqa: BLE001 - raised again in `await_end`
                self._error = error
                return
            self.dealt[kind] += 1

    def stop(self) -> None:
        """Deals no more than the blow that is under way; does not wait for its end."""
        self._enough.set()

    def await_end(self) -> None:
        """Returns when the last blow is over.

        Raises:
            BaseException: what went wrong with a blow, or with getting up after it.
        """
        self.join()
        if self._error is not None:
            raise self._error


@contextmanager
def all_ended(tormentors: Sequence[Tormentor]) -> Iterator[None]:
    """Stops them after the block, and lets none outlive it, whatever happens meanwhile.

    Raises:
        BaseException: as `Tormentor.await_end`.
    """
    try:
        yield
        for each in tormentors:
            each.stop()
        for each in tormentors:
            each.await_end()
    except BaseException:
        for each in tormentors:
            each.stop()
        for each in tormentors:
            if each.is_alive():
                each.join()
        raise
