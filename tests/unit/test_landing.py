"""How requests share a commit: whoever writes leaves nobody behind. A spool, no server."""

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest

from webhook_receiver.delivery import Delivery, ReadDelivery, read
from webhook_receiver.landing import Landing
from webhook_receiver.raw_tables import Outcome
from webhook_receiver.spool import Spool

SECONDS = 10


def delivery(number: int) -> ReadDelivery:
    at = datetime(2026, 3, 1, tzinfo=UTC)
    return read(Delivery("keycrm", "shop", at, (), {}, b"%d" % number, "UTC"))


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path / "spool.sqlite", 1024 * 1024)


@pytest.fixture
def landing(spool: Spool) -> Landing:
    landing = Landing(spool)
    landing.saw_postgres("cannot be reached")  # so that deliveries go to the spool
    return landing


class _Overtaken:
    """The lock of the writer, with somebody who comes by just before it is asked for first."""

    def __init__(self, landing: Landing) -> None:
        self._landing = landing
        self._lock = threading.Lock()
        self._is_first = True

    def acquire(self, blocking: bool = True) -> bool:
        if self._is_first:
            self._is_first = False
            with ThreadPoolExecutor(1) as other:
                other.submit(self._landing.land, delivery(2)).result(SECONDS)
        return self._lock.acquire(blocking=blocking)

    def release(self) -> None:
        self._lock.release()


def test_who_was_written_before_he_asks_for_his_turn_keeps_nobody_waiting(
    landing: Landing, spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(landing, "_writing", _Overtaken(landing))
    assert landing.land(delivery(1)) is Outcome.SPOOLED
    third = threading.Thread(target=landing.land, args=[delivery(3)], daemon=True)
    third.start()
    third.join(SECONDS)
    assert not third.is_alive()
    assert spool.waiting()[0] == 3


def test_many_at_once_are_all_written(landing: Landing, spool: Spool) -> None:
    with ThreadPoolExecutor(16) as requests:
        outcomes = list(requests.map(landing.land, map(delivery, range(500)), timeout=60))
    assert outcomes == [Outcome.SPOOLED] * 500
    assert spool.waiting()[0] == 500
