"""The demo source of spec pulls: five deals, loaded like those of any CRM, and the spec's files.

Nothing falls back to it: its deals are loaded by ``stageline demo`` alone, and count only while the
project ``demo`` of source ``demo`` is active.
"""

from collections.abc import Iterator
from datetime import datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa
from psycopg.rows import dict_row

from loaders import pipeline_files
from loaders.columns import TYPES, content, fingerprints
from loaders.destination import FINGERPRINT, Target, clear_scratch, exclusive, land, touched
from loaders.load_log import Entry, logged
from loaders.pipeline_files import PipelineFiles, PipelineTotals
from stageline.database import connect
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


def write_outputs(at: datetime | None = None) -> PipelineFiles:
    """Writes the spec's three files from what the database holds, each of them whole or not at all.

    Args:
        at: The instant that the files are to bear, now by default.

    Raises:
        StagelineError: the database cannot be reached, or a file cannot be written.
    """
    found, deals = _read()
    return pipeline_files.write(found, deals, at=at, source=DEMO[0], is_demo=True)


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
