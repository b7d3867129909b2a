"""How deliveries share a commit, and what whoever brought one is told. A spool, no server."""

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pytest

from tests.landings import landed, running
from webhook_receiver.delivery import Delivery, ReadDelivery, read
from webhook_receiver.landing import BATCH, Landing
from webhook_receiver.raw_tables import Outcome
from webhook_receiver.spool import Spool, SpoolError


def delivery(number: int) -> ReadDelivery:
    at = datetime(2026, 3, 1, tzinfo=UTC)
    return read(Delivery("keycrm", "shop", at, (), {}, b"%d" % number, "UTC"))


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    with closing(Spool(tmp_path / "spool.sqlite", 1024 * 1024)) as spool:
        yield spool


@pytest.fixture
def landing(spool: Spool) -> Iterator[Landing]:
    with running(spool) as landing:
        landing.saw_postgres("cannot be reached")  # so that deliveries go to the spool
        yield landing


def test_many_at_once_are_all_written_and_told(landing: Landing, spool: Spool) -> None:
    with ThreadPoolExecutor(16) as requests:
        each = requests.map(partial(landed, landing), map(delivery, range(500)), timeout=60)
        assert list(each) == [Outcome.SPOOLED] * 500
    assert spool.waiting()[0] == 500


def test_what_waits_is_written_together_in_the_order_in_which_it_came(
    landing: Landing, spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches: list[list[bytes]] = []
    is_slow, go_on = threading.Event(), threading.Event()

    def put(deliveries: Sequence[Delivery]) -> None:
        batches.append([each.body for each in deliveries])
        is_slow.set()
        assert go_on.wait(20)

    monkeypatch.setattr(spool, "put", put)
    told: list[int] = []
    landing.land(delivery(0), lambda _: told.append(0))
    assert is_slow.wait(20)
    for number in range(1, BATCH + 3):
        landing.land(delivery(number), lambda _, number=number: told.append(number))
    assert told == []
    go_on.set()
    landing.stop()
    assert [len(batch) for batch in batches] == [1, BATCH, 2]
    assert [body for batch in batches for body in batch] == [b"%d" % n for n in range(BATCH + 3)]
    assert told == list(range(BATCH + 3))


@pytest.mark.parametrize("error", [SpoolError("full"), RuntimeError("a fault of our own")])
def test_who_is_written_nowhere_is_told_so_and_the_next_one_is_written(
    landing: Landing, spool: Spool, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    with monkeypatch.context() as broken:

        def put(_: Sequence[Delivery]) -> None:
            raise error

        broken.setattr(spool, "put", put)
        assert landed(landing, delivery(1)) is None
    assert landed(landing, delivery(2)) is Outcome.SPOOLED
    assert spool.waiting()[0] == 1
