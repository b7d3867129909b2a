"""The demo source: its deals, their totals from the database, and the files of spec pulls."""

import json
import subprocess
import sys
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from loaders import demo, pipeline_files
from stageline import config
from stageline.database import connect
from stageline.errors import StagelineError

pytestmark = pytest.mark.usefixtures("database")

AT = datetime(2025, 12, 10, 20, 21, 45, 39161, tzinfo=UTC)


def projects() -> dict[tuple[str, str], bool]:
    with connect("owner") as session:
        rows = session.execute("select source_system, project_id, is_active from settings.projects")
        return {(source, project): active for source, project, active in rows}


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def test_the_totals_are_those_of_the_spec() -> None:
    found = demo.load_demo()
    assert found == pipeline_files.PipelineTotals(
        total_leads=5,
        total_value=Decimal(462_000),
        weighted_value=Decimal(254_500),
        stage_breakdown={"Qualification": 2, "Proposal": 1, "Negotiation": 1, "Closed Won": 1},
    )
    assert list(found.stage_breakdown) == ["Qualification", "Proposal", "Negotiation", "Closed Won"]


def test_loading_again_touches_nothing() -> None:
    query = "select id, xmin::text from raw_demo.opportunities order by id"
    demo.load_demo()
    with connect("owner") as session:
        before = session.execute(query).fetchall()
    demo.load_demo()
    with connect("owner") as session:
        assert session.execute(query).fetchall() == before
        book = session.execute(
            "select source, status, rows_read, rows_loaded, rows_unchanged from ops.loads"
            " order by started_at"
        ).fetchall()
    assert book == [("demo", "success", 5, 5, 0), ("demo", "success", 5, 0, 5)]


def test_the_files_have_the_shape_of_the_spec() -> None:
    demo.load_demo()
    files = demo.write_outputs(AT)
    output = config.settings().output
    assert files.pipeline == output / "sales_pipeline.json"
    assert files.cache == output / "sales_cache" / "sales_pipeline_20251210_202145.json"
    assert files.summary == output / "daily_summary.json"
    pipeline = read(files.pipeline)
    first = pipeline["leads"][0]
    assert {**pipeline, "leads": [first]} == {
        "timestamp": "2025-12-10T20:21:45.039161+00:00",
        "total_leads": 5,
        "total_value": 462000.0,
        "weighted_value": 254500.0,
        "stage_breakdown": {"Qualification": 2, "Proposal": 1, "Negotiation": 1, "Closed Won": 1},
        "leads": [
            {
                "id": "lead-001",
                "name": "Enterprise Integration Project",
                "company": "TechCorp Solutions",
                "stage": "Qualification",
                "value": 150000.0,
                "probability": 0.3,
                "owner": "Sales Rep A",
                "created_at": "2025-11-15T10:00:00Z",
                "updated_at": "2025-12-09T14:30:00Z",
            }
        ],
        "source": "demo",
        "demo": True,
    }
    assert list(pipeline) == [
        "timestamp",
        "total_leads",
        "total_value",
        "weighted_value",
        "stage_breakdown",
        "leads",
        "source",
        "demo",
    ]
    assert len(pipeline["leads"]) == 5
    assert '"total_value": 462000.0' in files.pipeline.read_text()
    assert files.cache.read_text() == files.pipeline.read_text()
    assert read(files.summary) == {
        "metadata": {"sales_pipeline_enabled": True},
        "sales_pipeline_summary": {
            "total_leads": 5,
            "total_value": 462000.0,
            "weighted_value": 254500.0,
            "timestamp": "2025-12-10T20:21:45.039161+00:00",
        },
    }


def test_the_files_tell_what_the_database_holds() -> None:
    demo.load_demo()
    with connect("owner") as session:
        session.execute(
            "update raw_demo.opportunities set value = value + 0.25 where id = 'lead-005'"
        )
    assert (
        read(demo.write_outputs(AT).summary)["sales_pipeline_summary"]["total_value"] == 462000.25
    )


def test_the_cache_goes_where_the_variable_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SALES_PIPELINE_CACHE", str(tmp_path / "kept"))
    config.settings.cache_clear()
    demo.load_demo()
    assert demo.write_outputs(AT).cache == tmp_path / "kept" / "sales_pipeline_20251210_202145.json"
    assert not (config.settings().output / "sales_cache").exists()


def test_a_write_that_fails_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "summary.json"
    pipeline_files.write_whole(path, "old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(StagelineError, match=r"summary\.json cannot be written: No space left"):
        pipeline_files.write_whole(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.glob(".summary*")) == []


@pytest.mark.parametrize("moment", ["fsync", "replace"])
def test_a_crash_leaves_the_old_file(tmp_path: Path, moment: str) -> None:
    path = tmp_path / "summary.json"
    pipeline_files.write_whole(path, "old")
    place = "os.fsync" if moment == "fsync" else "pathlib.Path.replace"
    code = (
        "import os, pathlib, signal\nfrom loaders import pipeline_files\n"
        f"{place} = lambda *given: os.kill(os.getpid(), signal.SIGKILL)\n"
        f"pipeline_files.write_whole(pathlib.Path({str(path)!r}), 'new')\n"
    )
    child = subprocess.run([sys.executable, "-c", code], timeout=60, check=False)
    assert child.returncode == -9
    assert path.read_text() == "old"
    pipeline_files.write_whole(path, "newer")
    assert path.read_text() == "newer"


def test_a_folder_that_cannot_be_made_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StagelineError, match=r"cannot be written: .*SALES_PIPELINE_CACHE"):
        pipeline_files.write_whole(tmp_path / "file" / "below" / "x.json", "{}")


def test_sample_and_demo_count_while_they_are_active() -> None:
    assert projects() == {}
    demo.activate_sample()
    demo.load_demo()
    assert projects() == {("sample", "sample"): True, ("demo", "demo"): True}
    demo.deactivate_sample()
    assert projects() == {("sample", "sample"): False, ("demo", "demo"): False}
    demo.load_demo()
    demo.activate_sample()
    assert projects() == {("sample", "sample"): True, ("demo", "demo"): True}
