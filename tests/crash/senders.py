"""Senders of webhooks, as real ones are: impatient, and at it again until they get a 200."""

import http.client
import json
import random
import threading
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self

from tests.crash.ledger import Delivery, Ledger

#: Seconds after which a sender hangs up: more than a receiver that is being stopped takes to end.
TIMEOUT = 5.0

#: How often something is sent that was sent before, and how often a sender gives up at once.
_REPEATS, _GIVES_UP = 0.05, 0.25


@dataclass
class Tally:
    """What became of the attempts to deliver.

    Attributes:
        statuses: Answers by HTTP status.
        resets: Attempts whose connection was refused or broke before the answer.
        timeouts: Attempts without an answer in `TIMEOUT`.
        worst: Seconds that the slowest answer took.
        not_taken: Deliveries that nobody had taken when all had long been alive again.
    """

    statuses: Counter[int] = field(default_factory=Counter)
    resets: int = 0
    timeouts: int = 0
    worst: float = 0.0
    not_taken: int = 0

    def add(self, other: "Tally") -> None:
        """Counts ``other`` in."""
        self.statuses += other.statuses
        self.resets += other.resets
        self.timeouts += other.timeouts
        self.worst = max(self.worst, other.worst)
        self.not_taken += other.not_taken

    @property
    def attempts(self) -> int:
        """How often anything was sent."""
        return self.statuses.total() + self.resets + self.timeouts


@dataclass(frozen=True)
class Endpoint:
    """Where to post on 127.0.0.1, and the headers by which a sender is known."""

    port: int
    path: str
    headers: Mapping[str, str]


class Load:
    """Senders at work; a context manager, which ends them in any case.

    Args:
        ledger: Gives what is sent, and is told what was acknowledged.
        endpoint: Where it is sent.
        clients: How many senders there are.
        chance: For all that they choose.
        rest: Seconds that each rests after a delivery.
    """

    def __init__(
        self,
        ledger: Ledger,
        endpoint: Endpoint,
        clients: int,
        chance: random.Random,
        rest: float = 0.0,
    ) -> None:
        self._no_more, self._give_up = threading.Event(), threading.Event()
        self._senders = [
            _Sender(
                ledger,
                endpoint,
                random.Random(chance.random()),  # noqa: S311 - no secret
                self._no_more,
                self._give_up,
                rest,
            )
            for _ in range(clients)
        ]

    def __enter__(self) -> Self:
        for sender in self._senders:
            sender.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.finish(0)

    def finish(self, patience: float) -> Tally:
        """Sends nothing new, waits until all is taken that is sent again, and counts.

        Args:
            patience: Seconds; what is not taken by then is given up.
        """
        self._no_more.set()
        deadline = time.monotonic() + patience
        for sender in self._senders:
            sender.join(max(deadline - time.monotonic(), 0))
        self._give_up.set()
        tally = Tally()
        for sender in self._senders:
            sender.join()
            tally.add(sender.tally)
        return tally


class _Sender(threading.Thread):
    def __init__(
        self,
        ledger: Ledger,
        endpoint: Endpoint,
        chance: random.Random,
        no_more: threading.Event,
        give_up: threading.Event,
        rest: float,
    ) -> None:
        super().__init__(daemon=True)
        self.tally = Tally()
        self._ledger, self._endpoint, self._chance = ledger, endpoint, chance
        self._no_more, self._give_up, self._rest = no_more, give_up, rest
        self._connection = http.client.HTTPConnection("127.0.0.1", endpoint.port, timeout=TIMEOUT)

    def run(self) -> None:
        while not self._no_more.is_set():
            repeats = self._chance.random() < _REPEATS
            delivery = self._ledger.again(self._chance) if repeats else None
            self._deliver(delivery or self._ledger.new(self._chance))
            self._no_more.wait(self._rest)
        self._connection.close()

    def _deliver(self, delivery: Delivery) -> None:
        gives_up = self._chance.random() < _GIVES_UP
        while not self._post(delivery) and not gives_up:
            # Real ones wait for minutes; what matters is that they come again.
            if self._give_up.wait(self._chance.uniform(0.02, 0.3)):
                self.tally.not_taken += 1
                return

    def _post(self, delivery: Delivery) -> bool:
        """Whether it was acknowledged."""
        started = time.monotonic()
        try:
            self._connection.request(
                "POST", self._endpoint.path, delivery.body, dict(self._endpoint.headers)
            )
            response = self._connection.getresponse()
            said = response.read()
        except TimeoutError:
            self.tally.timeouts += 1
            self._connection.close()
            return False
        except (OSError, http.client.HTTPException):
            self.tally.resets += 1
            self._connection.close()
            return False
        self.tally.worst = max(self.tally.worst, time.monotonic() - started)
        self.tally.statuses[response.status] += 1
        if response.status != 200:
            return False
        delivery.acknowledged_as = str(json.loads(said)["delivery_id"])
        return True
