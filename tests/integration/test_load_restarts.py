"""PostgreSQL is killed and started again at random points of loads: nothing is lost, or doubled.

The server is of this module's own: other tests are not to be hit.
"""

import os
import random
import signal
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import psutil
import pytest

from loaders import keycrm
from stageline import config, migrate, server
from stageline.errors import StagelineError
from tests.crm_loads import SEEDS, load_now, set_up
from tests.fakes.keycrm import FakeKeycrm
from tests.integration.test_load_keycrm import (
    assert_history_is_true,
    assert_is_true,
    moved_stages,
)

#: So many loads have to be hit, among so many.
HITS, MOST_LOADS = 3, 20


@pytest.fixture
def home(short_folder: Path, seed: int) -> Iterator[Path]:
    """A migrated server, which is the configured one."""
    folder = short_folder / f"load_restarts_{seed}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STAGELINE_HOME", str(folder))
        patch.setenv("STAGELINE_ENV_FILE", str(folder.with_suffix(".env")))
        patch.setenv("STAGELINE_OUTPUT", str(folder.with_suffix(".output")))
        config.settings.cache_clear()
        server.start(folder, 56900, durable=False)
        try:
            migrate.upgrade()
            yield folder
        finally:
            server.stop(folder)
    config.settings.cache_clear()


def restart(home: Path, how: signal.Signals) -> None:
    """Ends the server at once, whatever it is doing, and starts it again."""
    process = psutil.Process(int((home / "postgres" / "postmaster.pid").read_text().split()[0]))
    os.kill(process.pid, how)
    while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
        time.sleep(0.01)
    server.start(home, 56900, durable=False)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_server_that_crashes_within_loads_costs_no_order(
    home: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    chance = random.Random(seed)  # noqa: S311 - no secret
    hits = loads = 0
    seen: dict[int, list[tuple[str, datetime]]] = defaultdict(list)
    with FakeKeycrm(seed, limit=None) as shop:
        shop.populate(120, days=80)
        set_up(monkeypatch, "keycrm", shop)
        # What a load forgets, the one after it would find by that, or by a sweep.
        monkeypatch.setattr(keycrm, "OVERLAP", timedelta())
        lasts = load_now("keycrm").seconds
        shop.between_pages = lambda: shop.change_something() if chance.random() < 0.3 else None
        while hits < HITS:
            loads += 1
            assert loads <= MOST_LOADS, f"{hits} of {loads} loads were hit"
            for _ in range(40):
                shop.change_something()
            time.sleep(1 - time.time() % 1)  # what is of a load's second, the next one reads
            how = chance.choice([signal.SIGKILL, signal.SIGQUIT])
            blow = threading.Timer(chance.uniform(0.02, lasts), restart, (home, how))
            blow.start()
            try:
                lasts = load_now("keycrm").seconds
            except StagelineError as error:
                assert "\n" not in str(error)
                hits += 1
            blow.join()
        shop.between_pages = lambda: None
        assert load_now("keycrm").stopped is None
        for order_id, stage in moved_stages(shop):
            seen[order_id].append(stage)
        assert_is_true(shop, known=False)
        load_now("keycrm", is_full=True)
        assert_is_true(shop)
        assert_history_is_true(shop, seen)
