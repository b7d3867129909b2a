"""``stageline demo`` from nothing to numbers, as a newcomer runs it; again; and out again."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from stageline.database import connect
from tests.checkout import copy, stageline
from tests.conftest import DATABASE, Sample, _clone
from tests.integration.test_kpis import KPIS, ask


def ended(stderr: str) -> list[dict[str, Any]]:
    """The steps that its JSON lines say are done."""
    lines = [json.loads(line) for line in stderr.splitlines() if line.startswith("{")]
    return [line for line in lines if line["event"] == "done"]


def row(text: str, name: str) -> list[str]:
    """The cells of the line that begins with ``name``."""
    (line,) = [line for line in text.splitlines() if line.startswith(name)]
    return [cell.strip() for cell in line.split("  ") if cell.strip()]


def counted() -> dict[str, int]:
    """Rows of every table of raw data and KPIs."""
    with connect("owner") as session:
        names = session.execute(
            "select format('%I.%I', schemaname, tablename) from pg_tables"
            " where schemaname in ('raw_demo', 'raw_sample', 'kpis', 'snapshots', 'settings')"
            " and tablename not like '\\_dlt\\_%'"
        ).fetchall()
        return {
            name: session.execute(f"select count(*) from {name}").fetchone()[0]  # noqa: S608 - names come from the catalogue, quoted
            for (name,) in names
        }


def test_nothing_is_written_but_to_folders_that_can_be_named(
    sample: Sample, tmp_path: Path
) -> None:
    """So the rest of a deployment may be read-only (docs/deploy.md)."""
    copy(tmp_path / "unused")
    places = {
        path.relative_to(sample.checkout).parts[0]
        for path in sample.checkout.rglob("*")
        if path.is_file()
        and "__pycache__" not in path.parts
        and not (tmp_path / "unused" / path.relative_to(sample.checkout)).exists()
    }
    assert places <= {".env", ".stageline", "logs", "output", "target"}
    assert {".stageline", "target"} <= places


def test_from_nothing_to_numbers(sample: Sample) -> None:
    text, log = sample.said

    # The table of the KPI dictionary.
    assert row(text, "KPI") == ["KPI", "unit", "Jan 2024", "Feb 2024"]
    assert row(text, "Leads")[2:] == ["8", "4"]
    assert row(text, "Reached SQL")[2:] == ["4 (50.0 %)", "3 (75.0 %)"]
    assert row(text, "Won")[2:] == ["3 (37.5 %)", "1 (25.0 %)"]
    assert row(text, "Ticket SLA compliance")[2:] == ["95.0 %", "100.0 %"]
    assert row(text, "Customer satisfaction")[2:] == ["4.00", "4.50"]
    (january, february) = row(text, "Overall health")[2:]
    for told, expected in ((january, 73), (february, 78)):
        score, status = told.split()
        assert abs(float(score) - expected) <= 0.5 and status == "good"
    assert "Tickets that met both targets: 90.0 % (9 of 10)" in text
    assert row(text, "all leads")[1:4] == ["5", "462,000", "254,500"]
    assert [row(text, stage)[1] for stage in ("Qualification", "Proposal", "Negotiation")] == [
        "2",
        "1",
        "1",
    ]
    # What was done, and where to go.
    assert "data tests" in text and "passed" in text
    assert "stageline_reader" in text and "credentials.json" in text
    for name in ("sales_pipeline.json", "daily_summary.json", "data_docs/index.html"):
        assert (sample.checkout / "output" / name).exists() and name in text
    done = [step["step"] for step in ended(log)]
    assert done.index("Check the raw data") < done.index("Build and test the models")
    (checks,) = [step for step in ended(log) if step["step"] == "Check the raw data"]
    assert checks["tables"] == 8 and checks["critical"] == 0


@dataclass(frozen=True)
class Again:
    """The demo, run a second time on a copy of what it made.

    Attributes:
        stdout: What it said.
        before: Rows of each table before.
    """

    stdout: str
    before: dict[str, int]


@pytest.fixture(scope="module")
def again(sample: Sample, short_folder: Path) -> Iterator[Again]:
    """The configured database is the copy, in which every model was built anew."""
    folder = short_folder / "again"
    folder.mkdir()
    with (
        pytest.MonkeyPatch.context() as patch,
        _clone(sample.server, sample.owner.dbname, folder, patch, DATABASE),
    ):
        before = counted()
        # Tests that passed on the same rows: once is enough.
        leave_out = {"DBT_EXCLUDE_RESOURCE_TYPES": "unit_test test"}
        said = stageline(sample.checkout, "demo", **leave_out)
        yield Again(said.stdout, before)


@pytest.fixture
def reader(
    again: Again,  # noqa: ARG001 - the copy in which all was built anew
) -> Iterator[psycopg.Connection[Any]]:
    """What a BI tool gets."""
    with connect("reader", autocommit=True) as session:
        yield session


class TestAgain:
    """What it leaves as it was, where the data are as they were."""

    def test_nothing_is_loaded_twice_and_the_numbers_are_the_same(self, again: Again) -> None:
        before = again.before
        assert before["raw_demo.opportunities"] == 5 and before["raw_sample.sample_leads"] == 12
        assert counted() == before
        assert row(again.stdout, "Leads")[2:] == ["8", "4"]

    def test_snapshots_have_no_row_more(
        self, sample: Sample, reader: psycopg.Connection[Any]
    ) -> None:
        for name in (
            "pipeline_kpi_snapshot",
            "conversion_funnel_snapshot",
            "health_score_snapshot",
        ):
            count = f"select count(*) from snapshots.{name}"  # noqa: S608 - our names
            assert reader.execute(count).fetchall() == ask(sample.owner, count) != [(0,)], name

    def test_the_reader_reads_every_kpi_table_and_nothing_raw_and_writes_nothing(
        self, reader: psycopg.Connection[Any]
    ) -> None:
        tables = reader.execute(
            "select schemaname, tablename from pg_tables"
            " where schemaname in ('kpis', 'snapshots', 'reference') order by 1, 2"
        ).fetchall()
        assert {name for _, name in tables} >= KPIS
        for schema, name in tables:
            table = sql.Identifier(schema, name)
            reader.execute(sql.SQL("select * from {} limit 1").format(table))
            for verb in ("delete from {}", "truncate {}", "drop table {}"):
                with pytest.raises(psycopg.Error):
                    reader.execute(sql.SQL(verb).format(table))
        for forbidden in (
            "select * from raw_files.leads",
            "select * from raw_sample.sample_leads",
            "select * from raw_demo.opportunities",
            "select * from staging.stg_leads",
            "select * from settings.projects",
            "select * from ops.loads",
            "create table kpis.mine (a int)",
            "create temporary table mine (a int)",
        ):
            with pytest.raises(psycopg.Error):
                reader.execute(forbidden)


def test_out_again(sample: Sample, again: Again) -> None:
    told, _ = stageline(sample.checkout, "demo", "--remove")
    assert "stageline build" in told
    build = ("build", "--no-check", "--exclude", "resource_type:unit_test")
    _, log = stageline(sample.checkout, *build, "--select", "+conversion_funnel")
    assert "warning: the raw data was not checked (--no-check)." in log
    assert "Check the raw data" not in log
    after = counted()
    assert after["kpis.conversion_funnel"] == 0 < again.before["kpis.conversion_funnel"]
    assert after["raw_sample.sample_leads"] == 12
