"""The short form of `python -m tests.crash` and `tests.crash.soak`: all is killed under load."""

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.crash.flawed_receivers import ANSWERS_EARLY, COMMITS_LATER
from tests.crash.refreshes import Refreshes
from tests.crash.rounds import Scene, Stage, stage

SEED = random.randrange(10**6)  # noqa: S311 - no secret


@pytest.fixture(scope="module")
def own_stage(short_folder: Path) -> Iterator[Stage]:
    """A PostgreSQL that may be killed, with fsync: not the one of the other tests."""
    folder = short_folder / "crash"
    folder.mkdir()
    folder.chmod(0o755)
    with stage(folder) as made:
        yield made


def test_what_was_acknowledged_is_there_once_whatever_was_killed(own_stage: Stage) -> None:
    with Scene(own_stage, "beaten", clients=16, seed=SEED) as scene:
        report = scene.play(5, pause=(0.1, 0.5))
    assert not report.faults, f"seed {SEED}: {report.faults.lines()}"
    assert report.acknowledged > 100, report
    assert len(report.blows) >= 3, (
        "PostgreSQL, receiver and worker were all killed, or parts of them"
    )


@pytest.mark.parametrize("flaw", [COMMITS_LATER, ANSWERS_EARLY])
def test_a_receiver_that_promises_too_much_is_found_out(own_stage: Stage, flaw: str) -> None:
    with Scene(own_stage, flaw, flaw, clients=16, seed=SEED) as scene:
        assert scene.expose().lost > 0, f"seed {SEED}"


def test_readers_see_whole_tables_whatever_is_killed_in_a_refresh(own_stage: Stage) -> None:
    seen, faults = Refreshes(own_stage, SEED).play(5, pause=(0.2, 2.0))
    assert not faults, f"seed {SEED}: {faults.lines()}"
    assert seen.outages > 0, "PostgreSQL was killed"
