"""``stageline run`` for long, with faults: ``python -m tests.crash.soak``; see ``--help``."""

import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import click
import psutil
import psycopg
import yaml

from stageline import config, server
from stageline.config import PROJECT_ROOT
from stageline.database import connect
from stageline.errors import StagelineError
from tests.crash.blows import Blow, Deck, Tormentor, all_ended
from tests.crash.command import ignore_stops, own_folder, stop_on_signals
from tests.crash.ledger import Ledger
from tests.crash.processes import Postgres, all_with, dbt_of, kill, kill_family
from tests.crash.readers import Readers, Readings, counts, judge_readings, readable
from tests.crash.rounds import configuration, within
from tests.crash.senders import Endpoint, Load
from tests.crash.verdict import Faults, judge_deliveries, read_stored
from tests.fakes.keycrm import FakeKeycrm
from tests.plain_postgres import free_port
from tests.receivers import let_in
from tests.supervised import Run, running

#: Seconds that the demo may take to be set up, a part to be back after a blow, and all tables to be
#: fresh in peace.
_SET_UP, _BACK, _FRESH = 1200.0, 180.0, 900.0

#: Least and most seconds between two blows at the same part; how long blows are dealt in a round.
_PAUSE, _ROUND = (5.0, 25.0), 60.0

#: Seconds that dbt is waited for, and then left alone at most, before it is killed.
_DBT_COMES, _DBT_WORKS = 60.0, 8.0

#: Seconds between two webhooks of the sender.
_REST = 0.5

#: Schemas that people read.
_READ = ("kpis", "snapshots", "reference")

_PROJECT = "soak"

NOT_BACK = f"not back {_BACK:g} s after a blow"
NOT_FRESH = f"a table that is not fresh after {_FRESH:g} s of peace"
NOT_STOPPED = "an exit code of `stageline run` that was told to stop"
LEFT_BEHIND = "a process that `stageline run` left behind"


@click.command()
@click.option("--minutes", type=click.FloatRange(min=0), default=60.0, show_default=True)
@click.option("--seed", type=int, help="Of an earlier run, to play its blows again.")
@click.option("--keep", is_flag=True, help="Keep the folder with all logs.")
def main(minutes: float, seed: int | None, keep: bool) -> None:
    """Does `stageline run` keep the demo's tables fresh, whatever is killed?

    Tables are refreshed every minute while PostgreSQL, worker, dbt and receiver are killed at
    random, a sender posts webhooks, and readers read every table. After each minute of blows comes
    peace, until all tables are fresh by themselves. Exit code 1 if they do not get so, if a reader
    saw a table that was not whole, or if an acknowledged webhook is not stored.
    """
    stop_on_signals()
    seed = random.randrange(10**6) if seed is None else seed  # noqa: S311 - no secret
    click.echo(f"seed {seed}")
    with own_folder(keep=keep) as folder:
        faults = _soak(folder, minutes * 60, random.Random(seed))  # noqa: S311 - no secret
        ignore_stops()
    click.echo("FAULTS" if faults else "no faults")
    for line in faults.lines():
        click.echo(f"    {line}")
    sys.exit(1 if faults else 0)


def _soak(folder: Path, seconds: float, chance: random.Random) -> Faults:
    home, refreshes = folder / "home", folder / "refreshes.yml"
    refreshes.write_text(_every_minute())
    variables = {
        "STAGELINE_KPI_REFRESH_CONFIG": str(refreshes),
        "STAGELINE_OUTPUT": str(folder / "output"),
        "STAGELINE_PORT": str(free_port()),
        "DBT_TARGET_PATH": str(folder / "target"),
        "DBT_LOG_PATH": str(folder / "logs"),
    }
    with configuration(folder, **variables), FakeKeycrm(limit=None) as crm:
        temporary = os.environ["TMPDIR"]
        postgres = Postgres(home, config.settings().port)
        with running(folder / "run.log", home, free_port(), {}, "--demo") as run:
            if not within(_SET_UP, run.is_whole):
                raise AssertionError(f"it was not set up: {run.logs.read_text()[-2000:]}")
            soak = Soak(run, postgres, crm, chance)
            soak.play(seconds)
            for command in (["jobs", "status"], ["jobs", "history"]):
                subprocess.run([sys.executable, "-m", "stageline", *command], check=False)
            code = run.stop()
            if code != 0:
                soak.faults.note(NOT_STOPPED, code)
        for process in all_with("TMPDIR", temporary):
            soak.faults.note(LEFT_BEHIND, process)
        return soak.faults


def _every_minute() -> str:
    """The refreshes as shipped, but each minute, promised with time for some that are killed."""
    shipped = yaml.safe_load((PROJECT_ROOT / "jobs" / "kpi_refresh_config.yml").read_text())
    for group in shipped["groups"].values():
        group.pop("done_within", None)
        group |= {"schedule": "* * * * *", "never_older_than": "15m"}
    return yaml.safe_dump(shipped)


@dataclass
class _Round:
    """What was dealt and seen in a round."""

    blows: Counter[str] = field(default_factory=Counter)
    seconds_to_fresh: float = 0.0


class Soak:
    """A ``stageline run`` with the demo, a sender and readers.

    Attributes:
        faults: What is wrong.

    Args:
        run: The process, all of whose parts run.
        postgres: Its server.
        crm: For the sender.
        chance: For all that is left to chance.
    """

    def __init__(
        self, run: Run, postgres: Postgres, crm: FakeKeycrm, chance: random.Random
    ) -> None:
        self.faults = Faults()
        self._run, self._postgres, self._chance = run, postgres, chance
        self._ledger = Ledger(crm)
        headers = let_in("keycrm", _PROJECT)
        self._endpoint = Endpoint(run.port, f"/webhooks/keycrm/{_PROJECT}", headers)
        self._decks = self._new_decks()

    def play(self, seconds: float) -> None:
        """Peace, then rounds of blows and peace for so long, or until there is a fault."""
        click.echo(f"all is set up, and fresh {self._await_freshness():.0f} s later")
        relations = readable(*_READ)
        before = counts(relations)
        ends = time.monotonic() + seconds
        with Readers(relations) as readers:
            while time.monotonic() < ends and not self.faults:
                played = self._play_round(min(_ROUND, ends - time.monotonic()))
                after = counts(relations)
                self._judge(played, readers.take(), before, after)
                before = after

    def _play_round(self, seconds: float) -> _Round:
        played = _Round()
        tormentors = [Tormentor(deck, _PAUSE, self._new_chance()) for deck in self._decks]
        with Load(self._ledger, self._endpoint, 1, self._new_chance(), _REST) as load:
            with all_ended(tormentors):
                for each in tormentors:
                    each.start()
                time.sleep(seconds)
            load.finish(_BACK)
        played.blows = sum((each.dealt for each in tormentors), Counter())
        played.seconds_to_fresh = self._await_freshness()
        return played

    def _await_freshness(self) -> float:
        """Waits until all tables hold what has come in by now; gives the seconds that it took."""
        peace, since = datetime.now(UTC), time.monotonic()
        if not within(_FRESH, lambda: not self._stale(peace)):
            for each in self._stale(peace):
                self.faults.note(NOT_FRESH, each)
        return time.monotonic() - since

    def _stale(self, peace: datetime) -> list[str]:
        try:
            with connect("jobs") as session:
                return [
                    f"{model} ({state})"
                    for model, state in session.execute(
                        "select model, state from ops.model_freshness"
                        " where state != 'fresh' or reflects_until < %s"
                        " union all select 'none', 'never built' where not exists"
                        " (select from ops.model_freshness)",
                        [peace],
                    )
                ]
        except (psycopg.OperationalError, StagelineError) as error:
            return [f"PostgreSQL ({type(error).__name__})"]

    def _judge(
        self, played: _Round, seen: Readings, before: dict[str, int], after: dict[str, int]
    ) -> None:
        judge_readings(seen, before, after, self.faults)
        deliveries = self._ledger.deliveries()
        with connect("owner") as session:
            judge_deliveries(deliveries, read_stored(session, _PROJECT), self.faults)
        dealt = ", ".join(f"{kind} {times}" for kind, times in sorted(played.blows.items()))
        click.echo(
            f"{datetime.now(UTC):%H:%M:%S} blows: {dealt}; fresh after"
            f" {played.seconds_to_fresh:.0f} s of peace; {seen.reads} reads of"
            f" {len(seen.counts)} tables, {seen.outages} times PostgreSQL was away;"
            f" {sum(1 for each in deliveries if each.acknowledged_as)} of {len(deliveries)}"
            " deliveries acknowledged so far"
        )
        for line in self.faults.lines():
            click.echo(f"    FAULT {line}")

    def _new_chance(self) -> random.Random:
        """For a thread of its own."""
        return random.Random(self._chance.random())  # noqa: S311 - no secret

    def _new_decks(self) -> list[Deck]:
        """What can happen to each part; each blow is over when the part is back."""

        def postgres_is_back() -> bool:
            return server.find(self._run.home) is not None

        return [
            self._deck(
                postgres_is_back,
                {
                    "PostgreSQL": lambda _: self._postgres.kill(),
                    "postmaster": lambda _: self._postgres.kill_postmaster(),
                    "session of dbt": self._kill_session,
                },
            ),
            self._deck(
                lambda: "worker" in self._run.parts(),
                {
                    "dbt": self._kill_dbt,
                    "worker": lambda _: kill([self._part("worker")]),
                    "worker and dbt": lambda _: kill_family(self._part("worker")),
                },
            ),
            self._deck(
                self._run.receives,
                {
                    "receiver": lambda _: kill_family(self._part("receiver")),
                    "receiver parent": lambda _: kill([self._part("receiver")]),
                },
            ),
        ]

    def _deck(self, is_back: Callable[[], bool], blows: dict[str, Blow]) -> Deck:
        def until_back(kind: str, blow: Blow) -> Blow:
            def dealt(chance: random.Random) -> None:
                blow(chance)
                if not within(_BACK, is_back):
                    self.faults.note(NOT_BACK, kind)

            return dealt

        return Deck(
            {kind: until_back(kind, blow) for kind, blow in blows.items()}, self._new_chance()
        )

    def _kill_session(self, _chance: random.Random) -> None:
        within(_DBT_COMES, lambda: self._postgres.kill_session("transformer"))

    def _kill_dbt(self, chance: random.Random) -> None:
        if within(_DBT_COMES, lambda: bool(self._dbt())):
            time.sleep(chance.uniform(0, _DBT_WORKS))
            kill(self._dbt())

    def _part(self, name: str) -> psutil.Process:
        """The process of a part, which may just be between two starts."""
        within(_BACK, lambda: name in self._run.parts())
        return self._run.parts()[name]

    def _dbt(self) -> list[psutil.Process]:
        worker = self._run.parts().get("worker")
        return dbt_of(worker) if worker else []


if __name__ == "__main__":
    main()
