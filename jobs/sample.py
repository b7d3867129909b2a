"""The sample data: seeds of the dbt project, loaded before a build so that they can be checked."""

import csv
import hashlib
from dataclasses import dataclass
from pathlib import Path

from psycopg import sql

from jobs.build import build
from stageline.config import PROJECT_ROOT
from stageline.database import connect

_FOLDER = PROJECT_ROOT / "seeds" / "sample"


@dataclass(frozen=True)
class _Seed:
    """One file of sample data."""

    path: Path
    sha256: str
    rows: int

    @property
    def entity(self) -> str:
        """The entity that its rows are."""
        return self.path.stem.removeprefix("sample_")


def seed_sample() -> bool:
    """Loads the sample data with ``dbt seed``, if its files are not what was loaded last.

    A build loads the seeds, too, but only after the checks, which are to see them first.

    Returns:
        Whether there was anything to load.

    Raises:
        BuildError: dbt could not load it.
        StagelineError: the database cannot be reached, or a build is running.
    """
    seeds = [_read(path) for path in sorted(_FOLDER.glob("sample_*.csv"))]
    if all(_is_loaded(seed) for seed in seeds):
        return False
    build("tag:sample", command="seed", title="Load the sample data")
    with connect("jobs") as ops, ops.cursor() as cursor:
        cursor.executemany(
            """
            insert into ops.loads (
                source, entity, project_id, file_name, file_sha256,
                finished_at, rows_read, rows_loaded, status
            ) values ('sample', %s, 'sample', %s, %s, clock_timestamp(), %s, %s, 'success')
            """,
            [(seed.entity, seed.path.name, seed.sha256, seed.rows, seed.rows) for seed in seeds],
        )
    return True


def _read(path: Path) -> _Seed:
    content = path.read_bytes()
    rows = sum(1 for _ in csv.DictReader(content.decode("utf-8").splitlines()))
    return _Seed(path, hashlib.sha256(content).hexdigest(), rows)


def _is_loaded(seed: _Seed) -> bool:
    """Whether the last load of this seed had this content, and its table is there."""
    with connect("jobs") as ops:
        last = ops.execute(
            "select file_sha256 from ops.loads"
            " where source = 'sample' and entity = %s and status = 'success'"
            " order by started_at desc limit 1",
            (seed.entity,),
        ).fetchone()
    if last != (seed.sha256,):
        return False
    with connect("transformer") as database:
        name = sql.Identifier("raw_sample", seed.path.stem).as_string(database)
        found = database.execute("select to_regclass(%s) is not null", (name,)).fetchone()
    return found == (True,)
