"""A small dbt project that is built again and again while its builds are killed, and is read."""

import random
import shutil
import subprocess
import sys
import time

from stageline.config import PROJECT_ROOT
from stageline.database import connect
from tests.crash.blows import Deck
from tests.crash.processes import Program, kill
from tests.crash.readers import Readers, Readings, counts, judge_readings
from tests.crash.rounds import Stage, within
from tests.crash.verdict import Faults

LEFT_OVER = "a table of a killed build that the next one left"

#: Seconds that a build is waited for.
_PATIENCE = 60.0

_PROJECT = """\
name: small
version: "1.0"
config-version: 2
profile: stageline
models:
  +schema: kpis
  +grants:
    select: [stageline_reader]
"""

#: One of each kind of relation that people read: with what a refresh does to it.
_MODELS = {
    "crash_table": "{{ config(materialized='table') }}"
    " select n, now() as at from generate_series(1, 3000) as n, pg_sleep(0.1)",
    "crash_view": "select n, at from {{ ref('crash_table') }}",
    "crash_view_on_view": "select n from {{ ref('crash_view') }} cross join pg_sleep(0)",
    "crash_entities": "{{ config("
    "materialized='incremental', unique_key='n', incremental_strategy='delete+insert') }}"
    " select n, at from {{ ref('crash_table') }}",
}


class Refreshes:
    """The project, and a process that builds it.

    Args:
        stage: Where it plays.
        seed: For all that is left to chance.
    """

    def __init__(self, stage: Stage, seed: int) -> None:
        self._postgres = stage.postgres
        self._chance = random.Random(f"{seed} refreshes")  # noqa: S311 - no secret
        self._project = stage.folder / "small"
        shutil.copytree(PROJECT_ROOT / "macros", self._project / "macros")
        shutil.copy(PROJECT_ROOT / "profiles.yml", self._project)
        (self._project / "dbt_project.yml").write_text(_PROJECT)
        (self._project / "models").mkdir()
        for name, query in _MODELS.items():
            (self._project / "models" / f"{name}.sql").write_text(query)
        self._builder = Program(
            stage.folder / "refresher.log", {}, "tests.crash.refresher", str(self._project)
        )

    def play(self, blows: int, pause: tuple[float, float]) -> tuple[Readings, Faults]:
        """Blows at what builds, one after the other, then peace: what was read, and what is wrong.

        Args:
            blows: How many; each kind comes once before any comes again.
            pause: Least and most seconds before each.
        """
        deck = Deck(
            {
                "dbt": self._kill_dbt,
                "session of dbt": self._kill_session,
                "builder": self._kill_builder,
                "postmaster": self._kill_postmaster,
                "PostgreSQL": self._kill_postgres,
            },
            self._chance,
        )
        relations = [f"kpis.{name}" for name in _MODELS]
        self._build()
        before, faults = counts(relations), Faults()
        with Readers(relations) as readers:
            self._builder.start()
            try:
                for _ in range(blows):
                    time.sleep(self._chance.uniform(*pause))
                    _, blow = deck.draw()
                    blow(self._chance)
            finally:
                self._builder.kill()
            self._build()
            seen = readers.take()
        judge_readings(seen, before, counts(relations), faults)
        with connect("transformer") as session:
            for (name,) in session.execute(
                "select relname from pg_class where relname like 'crash%\\_\\_dbt\\_%'"
            ):
                faults.note(LEFT_OVER, name)
        return seen, faults

    def _build(self) -> None:
        # Not in this process: what its dbt is forked from would end with the stage, as one of its.
        command = [sys.executable, "-m", "tests.crash.refresher", str(self._project), "--once"]
        subprocess.run(command, cwd=PROJECT_ROOT, check=True)

    def _kill_dbt(self, chance: random.Random) -> None:
        self._builder.keep_running()
        if within(_PATIENCE, lambda: bool(self._builder.dbt())):
            time.sleep(chance.uniform(0, 2))
            kill(self._builder.dbt())

    def _kill_session(self, _: random.Random) -> None:
        self._builder.keep_running()
        within(_PATIENCE, lambda: self._postgres.kill_session("transformer"))
        self._postgres.start()

    def _kill_builder(self, _: random.Random) -> None:
        self._builder.kill()
        self._builder.start()

    def _kill_postmaster(self, _: random.Random) -> None:
        self._postgres.kill_postmaster()
        self._postgres.start()

    def _kill_postgres(self, _: random.Random) -> None:
        self._postgres.kill()
        self._postgres.start()
