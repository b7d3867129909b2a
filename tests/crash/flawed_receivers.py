"""Receivers that break their promise, each in one way: the harness has to find them out.

Run as ``python -m tests.crash.flawed_receivers <flaw> <arguments of stageline receiver>``.
"""

import sys
import threading
from collections.abc import Callable, Sequence

from stageline import database
from stageline.cli.receiver import receiver
from webhook_receiver.delivery import Delivery, ReadDelivery
from webhook_receiver.landing import Landing, Tell
from webhook_receiver.raw_tables import Outcome
from webhook_receiver.spool import Spool

#: Seconds after the answer.
_LATER = 0.1


def _commit_later() -> None:
    database.SESSION["receiver"] = {"synchronous_commit": "off"}


def _answer_early() -> None:
    in_time = Landing.land

    def early(self: Landing, delivery: ReadDelivery, tell: Tell) -> None:
        threading.Timer(_LATER, in_time, args=(self, delivery, lambda _: None)).start()
        tell(Outcome.STORED)

    Landing.land = early  # type: ignore[method-assign]


def _spool_later() -> None:
    at_once = Spool.put

    def later(self: Spool, deliveries: Sequence[Delivery]) -> None:
        threading.Timer(_LATER, at_once, args=(self, deliveries)).start()

    Spool.put = later  # type: ignore[method-assign]


COMMITS_LATER, ANSWERS_EARLY, SPOOLS_LATER = "commits-later", "answers-early", "spools-later"

#: Name of a flaw -> what gives it to the receiver of this process.
FLAWS: dict[str, Callable[[], None]] = {
    COMMITS_LATER: _commit_later,
    ANSWERS_EARLY: _answer_early,
    SPOOLS_LATER: _spool_later,
}

if __name__ == "__main__":
    FLAWS[sys.argv[1]]()
    receiver.main(sys.argv[2:], prog_name="flawed receiver")
