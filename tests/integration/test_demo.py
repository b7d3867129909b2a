"""``stageline demo`` from nothing to numbers, as a newcomer runs it; again; and out again."""

import json
from typing import Any

import pytest

from stageline.database import connect
from tests.checkout import stageline
from tests.conftest import Sample


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


@pytest.mark.usefixtures("sample_database")
def test_again_and_out_again(sample: Sample) -> None:
    before = counted()
    assert before["raw_demo.opportunities"] == 5 and before["raw_sample.sample_leads"] == 12
    # Tests that passed on the same rows: once is enough.
    again, _ = stageline(sample.checkout, "demo", DBT_EXCLUDE_RESOURCE_TYPES="unit_test test")
    assert counted() == before
    assert row(again, "Leads")[2:] == ["8", "4"]

    told, _ = stageline(sample.checkout, "demo", "--remove")
    assert "stageline build" in told
    build = ("build", "--no-check", "--exclude", "resource_type:unit_test")
    _, log = stageline(sample.checkout, *build, "--select", "+conversion_funnel")
    assert "warning: the raw data was not checked (--no-check)." in log
    assert "Check the raw data" not in log
    after = counted()
    assert after["kpis.conversion_funnel"] == 0 < before["kpis.conversion_funnel"]
    assert after["raw_sample.sample_leads"] == 12
