"""Landing without the receiver around it."""

from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager

from webhook_receiver.delivery import ReadDelivery
from webhook_receiver.landing import Landing
from webhook_receiver.raw_tables import Outcome
from webhook_receiver.spool import Spool


@contextmanager
def running(spool: Spool) -> Iterator[Landing]:
    """A landing at work while the block runs."""
    landing = Landing(spool)
    landing.start()
    try:
        yield landing
    finally:
        landing.stop()


def landed(landing: Landing, delivery: ReadDelivery) -> Outcome | None:
    """What became of ``delivery``."""
    told: Future[Outcome | None] = Future()
    landing.land(delivery, told.set_result)
    return told.result(timeout=20)
