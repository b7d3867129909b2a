"""A whole Stageline of its own, and rounds in which it is beaten under load and then judged."""

import os
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import pytest
import requests

from jobs.follow_ups import states
from stageline import config, migrate
from stageline.database import connect
from stageline.settings import api_accounts
from tests.crash.blows import Deck, Tormentor, all_ended
from tests.crash.flawed_receivers import ANSWERS_EARLY, COMMITS_LATER, SPOOLS_LATER
from tests.crash.ledger import Ledger
from tests.crash.processes import Postgres, Program, ReceiverProgram, kill_all_with
from tests.crash.senders import TIMEOUT, Endpoint, Load, Tally
from tests.crash.verdict import (
    LOST,
    Faults,
    is_worked_off,
    judge_deliveries,
    judge_follow_ups,
    read_stored,
)
from tests.fakes.keycrm import FakeKeycrm
from tests.plain_postgres import free_port
from tests.receivers import let_in, use_key

#: Seconds that senders, spool and follow-up work have to come to an end once all is alive.
PATIENCE = 60.0

NOT_TAKEN = f"deliveries not taken within {PATIENCE:g} s of all being alive"
STILL_SPOOLS = f"still not without the spool {PATIENCE:g} s after all was alive"
WORK_STAYS = f"follow-up work not done {PATIENCE:g} s after all was alive"
NO_ANSWER = f"requests without an answer within {TIMEOUT:g} s"
WRONG_ANSWER = "answers that are neither 200 nor 503"

#: How many answers of the receiver are taken to come from each of its processes at least once.
_ANSWERS = 10

#: How often a flawed receiver is struck before it counts as not found out.
_TRIES = 5


@dataclass(frozen=True)
class Report:
    """What became of a round.

    Attributes:
        sent: How many deliveries were new in it.
        acknowledged: How many of these were acknowledged.
        only_stored: How many of these are stored without that: their senders gave up.
        tally: All attempts.
        blows: How many of each kind.
        settled: Seconds from the last blow until all was worked off.
        faults: What is wrong, among all deliveries since the first round.
    """

    sent: int
    acknowledged: int
    only_stored: int
    tally: Tally
    blows: Counter[str]
    settled: float
    faults: Faults

    @property
    def lost(self) -> int:
        """Deliveries that were acknowledged and are not there."""
        return self.faults.count(LOST)


@dataclass(frozen=True)
class Stage:
    """What all scenes share: PostgreSQL with a migrated database, and a fake CRM.

    Attributes:
        folder: Where all files are.
        postgres: A server of its own.
        crm: An account that allows everything.
    """

    folder: Path
    postgres: Postgres
    crm: FakeKeycrm


@contextmanager
def configuration(folder: Path, **variables: str) -> Iterator[None]:
    """Has this process, and those that it starts, work in a folder; those are killed in the end.

    Args:
        folder: It is empty, and every account may enter it.
        variables: More of the environment.
    """
    with ExitStack() as ends:
        ends.callback(config.settings.cache_clear)
        patch = ends.enter_context(pytest.MonkeyPatch.context())
        for name in list(os.environ):
            if name.startswith(("STAGELINE_", "PG", "DBT_")):
                patch.delenv(name)
        temporary = folder / "tmp"
        temporary.mkdir()
        temporary.chmod(0o777)
        patch.setenv("TMPDIR", str(temporary))  # what is killed leaves its files there
        patch.setenv("STAGELINE_HOME", str(folder / "home"))
        patch.setenv("STAGELINE_ENV_FILE", str(folder / ".env"))
        for name, value in variables.items():
            patch.setenv(name, value)
        use_key(patch)
        # However the block ends, also where a scene was cut off while it started something.
        ends.callback(kill_all_with, "TMPDIR", str(temporary))
        yield


@contextmanager
def stage(folder: Path) -> Iterator[Stage]:
    """Sets a stage up in an empty folder that every account may enter; stops all in the end.

    The configuration of this process is that of the stage meanwhile.
    """
    with ExitStack() as ends:
        ends.enter_context(configuration(folder))
        crm = ends.enter_context(FakeKeycrm(limit=None))
        postgres = Postgres(folder / "home", free_port())
        ends.callback(postgres.stop)
        postgres.start()
        migrate.upgrade()
        yield Stage(folder, postgres, crm)


class Scene:
    """A project with its senders, a receiver, and a follow-up worker. A context manager.

    A flawed receiver has no worker beside it, whose commits would bring the receiver's to the disk.

    Args:
        stage: Where it plays; one scene at a time.
        project: Name of the project, which is made here.
        flaw: Which flaw the receiver has; None = it is the product's own.
        clients: How many senders there are at a time.
        seed: For all that is left to chance.
    """

    def __init__(
        self, stage: Stage, project: str, flaw: str | None = None, *, clients: int, seed: int
    ) -> None:
        self._stage, self._project, self._flaw = stage, project, flaw
        self._clients = clients
        self._chance = random.Random(f"{seed} {project}")  # noqa: S311 - no secret
        self._decks = self._new_decks()
        self._ledger = Ledger(stage.crm)
        port = free_port()
        self._endpoint = Endpoint(port, f"/webhooks/keycrm/{project}", let_in("keycrm", project))
        api_accounts.store("keycrm", project, stage.crm.token, stage.crm.base_url)
        program = ("tests.crash.flawed_receivers", flaw) if flaw else ("stageline", "receiver")
        variables = {"STAGELINE_SPOOL": str(stage.folder / f"{project}.sqlite")}
        self._receiver = ReceiverProgram(
            stage.folder / f"{project}-receiver.log", variables, port, *program
        )
        self._worker = Program(
            stage.folder / f"{project}-worker.log", {}, "tests.crash.follow_up_worker"
        )

    def __enter__(self) -> Self:
        self._receiver.start()
        if self._flaw is None:
            self._worker.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._receiver.kill()
        self._worker.kill()

    def play(self, seconds: float, pause: tuple[float, float]) -> Report:
        """A round: blows at every part while senders send, then peace, then judgement.

        Args:
            seconds: How long the senders send new deliveries, and blows are dealt.
            pause: Least and most seconds between two blows at the same part.
        """

        def torment() -> Counter[str]:
            tormentors = [Tormentor(deck, pause, self._new_chance()) for deck in self._decks]
            with all_ended(tormentors):
                for each in tormentors:
                    each.start()
                time.sleep(seconds)
            return sum((each.dealt for each in tormentors), Counter())

        return self._round(torment)

    def expose(self) -> Report:
        """Strikes at the flaw of the receiver until it has lost something, or for `_TRIES` rounds;
        gives the last one."""
        kind, blow = {
            COMMITS_LATER: ("PostgreSQL", self._kill_postgres),
            ANSWERS_EARLY: ("receiver", self._kill_receiver),
            SPOOLS_LATER: ("receiver while PostgreSQL is away", self._kill_receiver_alone),
        }[self._flaw or ""]

        def strike() -> Counter[str]:
            time.sleep(self._chance.uniform(0.7, 1.3))
            blow(self._chance)
            return Counter({kind: 1})

        report = self._round(strike)
        for _ in range(_TRIES - 1):
            if report.lost:
                break
            report = self._round(strike)
        return report

    def _round(self, happen: Callable[[], Counter[str]]) -> Report:
        before = len(self._ledger.deliveries())
        with Load(self._ledger, self._endpoint, self._clients, self._new_chance()) as load:
            blows = happen()
            peace = time.monotonic()
            tally = load.finish(PATIENCE)
        faults = _faults_of(tally)
        self._settle(faults)
        settled = time.monotonic() - peace
        stored = self._judge(faults)
        new = self._ledger.deliveries(before)
        return Report(
            sent=len(new),
            acknowledged=sum(1 for each in new if each.acknowledged_as is not None),
            only_stored=sum(
                1 for each in new if each.acknowledged_as is None and each.digest in stored
            ),
            tally=tally,
            blows=blows,
            settled=settled,
            faults=faults,
        )

    def _settle(self, faults: Faults) -> None:
        """Waits until spool and follow-up work have come to their end."""
        if not within(PATIENCE, self._is_back_to_normal):
            faults.note(STILL_SPOOLS, self._receiver.ready())
        if self._flaw is None and not within(PATIENCE, self._is_worked_off):
            with connect("jobs") as session:
                left = [f"{each.entity_id} ({each.state})" for each in states(session)]
            for each in left or ["deliveries that were not planned for"]:
                faults.note(WORK_STAYS, each)

    def _is_back_to_normal(self) -> bool:
        """Whether each process of the receiver writes to PostgreSQL, and the spool is empty."""
        try:
            return all(
                (said["postgres"], said["spooled"]) == ("up", 0)
                for said in (self._receiver.ready() for _ in range(_ANSWERS))
            )
        except requests.RequestException:
            return False

    def _is_worked_off(self) -> bool:
        self._worker.keep_running()
        with connect("owner") as session:
            return is_worked_off(session)

    def _judge(self, faults: Faults) -> set[str]:
        """Notes what is wrong with all that is stored; gives the digests of stored deliveries."""
        deliveries = self._ledger.deliveries()
        with connect("owner") as session:
            stored = read_stored(session, self._project)
        judge_deliveries(deliveries, stored, faults)
        if self._flaw is None:
            judge_follow_ups(deliveries, self._ledger.latest(), stored, faults)
        return {digest for _, digest in stored.deliveries}

    def _new_chance(self) -> random.Random:
        """For a thread of its own."""
        return random.Random(self._chance.random())  # noqa: S311 - no secret

    def _new_decks(self) -> list[Deck]:
        """What can happen to each part."""
        return [
            Deck(blows, self._new_chance())
            for blows in (
                {
                    "PostgreSQL": self._kill_postgres,
                    "postmaster": self._kill_postmaster,
                    "session of PostgreSQL": self._kill_session,
                    "PostgreSQL frozen": self._freeze_postgres,
                },
                {
                    "receiver": self._kill_receiver,
                    "receiver worker": self._kill_receiver_worker,
                    "receiver parent": self._kill_receiver_parent,
                },
                {"follow-up worker": self._kill_worker},
            )
        ]

    def _kill_postgres(self, chance: random.Random) -> None:
        self._stage.postgres.kill()
        time.sleep(chance.uniform(0, 1.5))
        self._stage.postgres.start()

    def _kill_postmaster(self, chance: random.Random) -> None:
        self._stage.postgres.kill_postmaster()
        time.sleep(chance.uniform(0, 1.5))
        self._stage.postgres.start()

    def _kill_session(self, _chance: random.Random) -> None:
        self._stage.postgres.kill_session()
        self._stage.postgres.start()

    def _freeze_postgres(self, chance: random.Random) -> None:
        with self._stage.postgres.frozen():
            time.sleep(chance.uniform(0.5, 3))

    def _kill_receiver(self, chance: random.Random) -> None:
        self._receiver.kill()
        time.sleep(chance.uniform(0, 0.5))
        self._receiver.start()

    def _kill_receiver_worker(self, _chance: random.Random) -> None:
        self._receiver.kill_worker()

    def _kill_receiver_parent(self, chance: random.Random) -> None:
        self._receiver.kill_parent()
        time.sleep(chance.uniform(0, 0.5))
        self._receiver.start()

    def _kill_receiver_alone(self, chance: random.Random) -> None:
        self._stage.postgres.kill()
        time.sleep(1)  # in which deliveries go to the spool
        self._kill_receiver(chance)
        self._stage.postgres.start()

    def _kill_worker(self, chance: random.Random) -> None:
        self._worker.kill()
        # It takes a second until it is at work.
        rest = time.monotonic() + chance.uniform(1, 3)
        while time.monotonic() < rest:
            self._worker.keep_running()
            time.sleep(0.1)


def _faults_of(tally: Tally) -> Faults:
    """What is wrong with the answers."""
    faults = Faults()
    for status, times in tally.statuses.items():
        if status not in (200, 503):
            faults.note(WRONG_ANSWER, status, times)
    if tally.timeouts:
        faults.note(NO_ANSWER, "a connection that stayed open", tally.timeouts)
    if tally.not_taken:
        faults.note(NOT_TAKEN, "a sender that gave up in the end", tally.not_taken)
    return faults


def within(seconds: float, is_so: Callable[[], bool]) -> bool:
    """Whether it becomes so in time."""
    deadline = time.monotonic() + seconds
    while not is_so():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True
