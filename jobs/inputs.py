"""What a build is made from, as one fingerprint: same fingerprint, same tables."""

import hashlib
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from stageline.config import PROJECT_ROOT
from stageline.database import connect

#: What of the project a build depends on.
_FOLDERS = ("models", "macros", "seeds", "snapshots", "tests/data")
_FILES = ("dbt_project.yml", "profiles.yml", "selectors.yml")


def fingerprint(now: datetime | None = None) -> str:
    """A hash of the dbt project, of all changes to raw data and settings, and of the day (UTC).

    The day, because open deals and tickets age. Changes are PostgreSQL's own counters of rows
    written, so that a change by hand counts, too; a crash of the server resets them, which only
    means a build too many.

    Args:
        now: Instant of the build; default: now.

    Raises:
        StagelineError: the database cannot be reached.
    """
    day = (now or datetime.now(UTC)).astimezone(UTC).date()
    hashed = hashlib.sha256(f"{day} {version('dbt-core')} {version('dbt-postgres')}".encode())
    for path in _project_files():
        hashed.update(str(path.relative_to(PROJECT_ROOT)).encode() + b"\0")
        hashed.update(hashlib.sha256(path.read_bytes()).digest())
    hashed.update(json.dumps(_rows_written()).encode())
    return hashed.hexdigest()


def _project_files() -> Iterator[Path]:
    for name in _FILES:
        if (PROJECT_ROOT / name).exists():
            yield PROJECT_ROOT / name
    for name in _FOLDERS:
        yield from sorted(path for path in (PROJECT_ROOT / name).rglob("*") if path.is_file())


def _rows_written() -> list[tuple[str, int]]:
    """Rows ever written per table of raw data and settings; without what dbt and dlt keep there."""
    with connect("jobs") as database:
        found = database.execute(
            """
            select schemaname || '.' || relname, n_tup_ins + n_tup_upd + n_tup_del
            from pg_stat_all_tables
            where (schemaname = 'settings' or schemaname = 'raw' or schemaname like 'raw\\_%')
                and schemaname <> 'raw_sample'
                and schemaname not like '%\\_staging'
                and relname not like '\\_dlt\\_%'
            order by 1
            """
        )
        return [(str(name), int(rows)) for name, rows in found]
