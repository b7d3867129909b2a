"""The demo source of spec pulls: five deals, loaded like those of any CRM, and the spec's files.

Nothing falls back to it: its deals are loaded by ``stageline demo`` alone, and count only while the
project ``demo`` of source ``demo`` is active.
"""

import contextlib
import json
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
from psycopg.rows import dict_row

from loaders.columns import TYPES, content, fingerprints
from loaders.destination import FINGERPRINT, Target, clear_scratch, exclusive, land, touched
from loaders.load_log import Entry, logged
from stageline.config import settings
from stageline.database import connect
from stageline.errors import StagelineError
from stageline.progress import step

DATASET = "raw_demo"

#: Source and project of the demo's deals, and of the sample data, in ``settings.projects``.
DEMO, SAMPLE = ("demo", "demo"), ("sample", "sample")

_COLUMNS = {
    "id": TYPES["text"],
    "name": TYPES["text"],
    "company": TYPES["text"],
    "stage": TYPES["text"],
    "value": TYPES["numeric"],
    "probability": TYPES["numeric"],
    "owner": TYPES["text"],
    "created_at": TYPES["timestamp"],
    "updated_at": TYPES["timestamp"],
}


def _deal(
    number: int, name: str, company: str, stage: str, value: str, probability: str, *about: str
) -> tuple[Any, ...]:
    owner, created, updated = about
    return (
        f"lead-{number:03}",
        name,
        company,
        stage,
        Decimal(value),
        Decimal(probability),
        owner,
        datetime.fromisoformat(created),
        datetime.fromisoformat(updated),
    )


#: The first is the one that the spec shows; the others are invented so that the totals come out.
DEALS: tuple[tuple[Any, ...], ...] = (
    _deal(
        1,
        "Enterprise Integration Project",
        "TechCorp Solutions",
        "Qualification",
        "150000",
        "0.3",
        "Sales Rep A",
        "2025-11-15T10:00:00Z",
        "2025-12-09T14:30:00Z",
    ),
    _deal(
        2,
        "Warehouse Scanner Rollout",
        "Northwind Logistics",
        "Qualification",
        "62000",
        "0.25",
        "Sales Rep B",
        "2025-11-20T09:15:00Z",
        "2025-12-08T11:00:00Z",
    ),
    _deal(
        3,
        "Customer Portal Upgrade",
        "Bluebird Insurance",
        "Proposal",
        "80000",
        "0.5",
        "Sales Rep A",
        "2025-11-10T13:45:00Z",
        "2025-12-05T16:20:00Z",
    ),
    _deal(
        4,
        "Analytics Platform Licence",
        "Harbour Foods",
        "Negotiation",
        "80000",
        "0.8",
        "Sales Rep C",
        "2025-11-05T08:30:00Z",
        "2025-12-10T09:40:00Z",
    ),
    _deal(
        5,
        "Support Contract Renewal",
        "Silverline Clinics",
        "Closed Won",
        "90000",
        "1.0",
        "Sales Rep B",
        "2025-11-03T10:20:00Z",
        "2025-12-01T15:10:00Z",
    ),
)


@dataclass(frozen=True)
class PipelineTotals:
    """A pipeline in four numbers, computed from the database.

    Attributes:
        total_leads: Deals.
        total_value: Sum of their values.
        weighted_value: Sum of value x probability.
        stage_breakdown: Stage -> deals in it, in the order of the first deal in each.
    """

    total_leads: int
    total_value: Decimal
    weighted_value: Decimal
    stage_breakdown: dict[str, int]


@dataclass(frozen=True)
class DemoFiles:
    """The files that ``write_outputs`` wrote: the snapshot, its copy in the cache, the summary."""

    pipeline: Path
    cache: Path
    summary: Path


def load_demo() -> PipelineTotals:
    """Loads the demo's deals into ``raw_demo`` and makes them count; returns their totals.

    Deals that are there already and have not changed are not touched.

    Raises:
        StagelineError: the database cannot be reached, or refused the load.
    """
    target = Target("opportunities", ("id",), _tables)
    with exclusive(DATASET) as session:
        entry = Entry("demo", target.table, DEMO[1], read=len(DEALS))
        with logged(session, entry), step("Load the demo source") as shown:
            load_id = land(session, DATASET, [target])
            entry.loaded = touched(session, DATASET, target, load_id)
            entry.unchanged = entry.read - entry.loaded
            clear_scratch(session, DATASET, [target])
            shown.note(deals=entry.read, unchanged=entry.unchanged)
    _set_active(DEMO, "Demo source")
    return totals()


def totals() -> PipelineTotals:
    """The totals of the demo's deals, summed by the database.

    Raises:
        StagelineError: the database cannot be reached.
    """
    return _read()[0]


def write_outputs(at: datetime | None = None) -> DemoFiles:
    """Writes the spec's three files from what the database holds, each of them whole or not at all.

    Args:
        at: The instant that the files are to bear, now by default.

    Raises:
        StagelineError: the database cannot be reached, or a file cannot be written.
    """
    at = (at or datetime.now(UTC)).astimezone(UTC)
    found, deals = _read()
    money = {
        "total_leads": found.total_leads,
        "total_value": _number(found.total_value),
        "weighted_value": _number(found.weighted_value),
    }
    timestamp = at.isoformat(timespec="microseconds")
    pipeline = {
        "timestamp": timestamp,
        **money,
        "stage_breakdown": found.stage_breakdown,
        "leads": [
            {
                **deal,
                "value": _number(deal["value"]),
                "probability": _number(deal["probability"]),
                "created_at": _instant(deal["created_at"]),
                "updated_at": _instant(deal["updated_at"]),
            }
            for deal in deals
        ],
        "source": "demo",
        "demo": True,
    }
    summary = {
        "metadata": {"sales_pipeline_enabled": True},
        "sales_pipeline_summary": {**money, "timestamp": timestamp},
    }
    output = settings().output
    cache = settings().sales_pipeline_cache or output / "sales_cache"
    files = DemoFiles(
        output / "sales_pipeline.json",
        cache / f"sales_pipeline_{at:%Y%m%d_%H%M%S}.json",
        output / "daily_summary.json",
    )
    write_whole(files.cache, _json(pipeline))
    write_whole(files.pipeline, _json(pipeline))
    write_whole(files.summary, _json(summary))
    return files


def activate_sample() -> None:
    """Makes the sample data (dbt's seeds) count in the KPIs.

    Raises:
        StagelineError: the database cannot be reached.
    """
    _set_active(SAMPLE, "Sample data")


def deactivate_sample() -> None:
    """Takes the sample data and the demo's deals out of the KPIs; their rows stay.

    Raises:
        StagelineError: the database cannot be reached.
    """
    with connect("owner") as session, session.cursor() as cursor:
        cursor.executemany(
            "update settings.projects set is_active = false"
            " where source_system = %s and project_id = %s and is_active",
            [SAMPLE, DEMO],
        )


def write_whole(path: Path, text: str) -> None:
    """Writes ``text`` to ``path`` so that a reader, or a crash, sees the old file or the new one.

    Raises:
        StagelineError: the folder or the file cannot be written; the old file is as it was.
    """
    part: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(
            "w", encoding="utf-8", dir=path.parent, prefix=f".{path.name}.", delete=False
        ) as file:
            part = Path(file.name)
            file.write(text)
            file.flush()
            os.fchmod(file.fileno(), 0o644)
            os.fsync(file.fileno())
        part.replace(path)
        part = None
        _sync_folder(path.parent)
    except OSError as error:
        raise StagelineError(
            f"{path} cannot be written: {error.strerror or error}. Make its folder writable, or set"
            " STAGELINE_OUTPUT (the cache: SALES_PIPELINE_CACHE) to another one."
        ) from None
    finally:
        if part is not None:
            with contextlib.suppress(OSError):
                part.unlink()


def _sync_folder(folder: Path) -> None:
    """Makes a rename in ``folder`` outlast a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _tables() -> Iterator[pa.Table]:
    columns = zip(*DEALS, strict=True)
    arrays = [pa.array(c, kind) for c, kind in zip(columns, _COLUMNS.values(), strict=True)]
    fields = [pa.field(name, kind) for name, kind in _COLUMNS.items()]
    fields.append(pa.field(FINGERPRINT, pa.string(), nullable=False))
    yield pa.Table.from_arrays([*arrays, fingerprints(content(arrays))], schema=pa.schema(fields))


def _read() -> tuple[PipelineTotals, list[dict[str, Any]]]:
    """Totals and deals, as of one instant."""
    with connect("loader") as session, session.cursor(row_factory=dict_row) as cursor:
        session.execute("set transaction isolation level repeatable read, read only")
        cursor.execute(
            """
            select
                count(*) as total_leads,
                coalesce(sum(value), 0) as total_value,
                coalesce(sum(value * probability), 0) as weighted_value
            from raw_demo.opportunities
            """
        )
        sums = cursor.fetchone() or {}
        cursor.execute(
            "select stage, count(*) as deals from raw_demo.opportunities"
            " group by stage order by min(id)"
        )
        stages = {row["stage"]: row["deals"] for row in cursor}
        cursor.execute(
            """
            select id, name, company, stage, value, probability, owner, created_at, updated_at
            from raw_demo.opportunities
            order by id
            """
        )
        return PipelineTotals(**sums, stage_breakdown=stages), cursor.fetchall()


def _set_active(project: tuple[str, str], name: str) -> None:
    with connect("owner") as session:
        session.execute(
            """
            insert into settings.projects (source_system, project_id, name)
            values (%s, %s, %s)
            on conflict (source_system, project_id) do update
            set is_active = true
            where not projects.is_active
            """,
            [*project, name],
        )


def _number(exact: Decimal) -> float:
    """``exact`` as JSON's number (150000.0), which it must equal to the last digit.

    Raises:
        StagelineError: it has more digits than a JSON reader keeps.
    """
    number = float(exact)
    if Decimal(repr(number)) != exact:
        raise StagelineError(f"{exact} has more digits than a JSON number can be trusted with.")
    return number


def _instant(at: datetime) -> str:
    return at.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _json(data: Any) -> str:
    return json.dumps(data, ensure_ascii=False, indent=2) + "\n"
