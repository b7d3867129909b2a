"""The files of spec pulls, made of what was built."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from jobs.pipeline_export import export
from stageline import config
from stageline.database import connect
from stageline.errors import StagelineError

AT = datetime(2026, 3, 10, 20, 21, 45, tzinfo=UTC)


def read(path: Path) -> Any:
    return json.loads(path.read_text())


@pytest.mark.usefixtures("sample_database")
def test_the_files_add_up_what_the_table_holds() -> None:
    files = export("sample", at=AT)
    snapshot, summary = read(files.pipeline), read(files.summary)
    with connect("reader") as session:
        count, value, weighted = session.execute(
            "select count(*), sum(amount)::float, sum(expected_amount)::float"
            " from kpis.pipeline_as_of where status != 'lost' and source_system = 'sample'"
        ).fetchone() or (0, 0, 0)
    assert count > 0
    assert (snapshot["total_leads"], len(snapshot["leads"])) == (count, count)
    assert (snapshot["total_value"], snapshot["weighted_value"]) == (value, weighted)
    assert sum(snapshot["stage_breakdown"].values()) == count
    assert (snapshot["source"], snapshot["demo"]) == ("sample", True)
    assert summary["sales_pipeline_summary"]["total_value"] == value
    assert files.cache.read_text() == files.pipeline.read_text()
    with pytest.raises(StagelineError, match="no deals of hubspot in the pipeline"):
        export("hubspot", at=AT)


@pytest.mark.usefixtures("sample_database")
def test_amounts_of_several_currencies_are_not_added_up() -> None:
    snapshot = read(export(at=AT).pipeline)
    assert (snapshot["total_value"], snapshot["weighted_value"], snapshot["source"]) == (
        None,
        None,
        "all",
    )
    assert snapshot["demo"] is True
    by_currency = snapshot["by_currency"]
    assert by_currency["XXX"] == {  # those of the demo, as the spec has them
        "total_leads": 5,
        "total_value": 462000.0,
        "weighted_value": 254500.0,
    }
    assert sum(each["total_leads"] for each in by_currency.values()) == snapshot["total_leads"]


@pytest.mark.usefixtures("sample_database")
def test_what_is_made_up_is_left_out_beside_real_deals() -> None:
    with connect("owner", autocommit=True) as session:
        session.execute(
            "update kpis.pipeline_as_of set source_system = 'hubspot' where opportunity_key in ("
            " select opportunity_key from kpis.pipeline_as_of"
            " where source_system = 'sample' and status = 'open' limit 2)"
        )
    real = read(export(at=AT).pipeline)
    assert (real["source"], real["demo"], real["total_leads"]) == ("hubspot", False, 2)
    assert {deal["source"] for deal in real["leads"]} == {"hubspot"}
    demo = read(export("demo", at=AT).pipeline)
    assert (demo["source"], demo["demo"], demo["total_leads"]) == ("demo", True, 5)


@pytest.mark.usefixtures("sample_database")
def test_copies_are_kept_for_30_days_and_nothing_else_is_removed() -> None:
    cache = config.settings().output / "sales_cache"
    cache.mkdir(parents=True)
    names = {
        "sales_pipeline_20260208_202144.json": False,
        "sales_pipeline_20260208_202145.json": True,
        "sales_pipeline_20260309_000000.json": True,
        "sales_pipeline_20260230_120000.json": True,
        "sales_pipeline_last.json": True,
        "notes.txt": True,
    }
    for name in names:
        (cache / name).write_text("{}")
    assert export(at=AT).removed == 1
    assert {name: (cache / name).exists() for name in names} == names


@pytest.mark.usefixtures("database")
def test_before_a_build_it_says_so() -> None:
    with pytest.raises(StagelineError, match="Nothing is built yet"):
        export()
