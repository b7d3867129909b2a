"""Figures of sales activity, held to their facts and to the semantic layer on generated data."""

from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest
from click.testing import CliRunner

from stageline import config
from stageline.cli import main
from stageline.config import PROJECT_ROOT
from stageline.database import connect
from stageline.explain import models
from tests.conftest import DATABASE, Sample, _clone
from tests.integration.test_flow_figures import some_cells, told
from tests.integration.test_readme import lines
from tests.integration.test_semantic_layer import ACTIVITY_TABLES, Metricflow, metricflow
from tests.warm_dbt import WarmDbt

ACTIVITY = ("path:models/intermediate/activity", "path:models/kpis/activity")
#: The week over new year, in the middle of what is generated; and the day of its end.
EARLIER, AS_OF = "2026-01-01T21:30:00+00:00", "2026-02-02T10:00:00+00:00"
#: The KPI tables that are made of facts.
APART = sorted(
    name
    for name, model in models().items()
    if model.fact in {"fct_calls", "fct_item_steps", "fct_pipeline_items", "fct_sales"}
)


@pytest.fixture(scope="module", autouse=True)
def activity(
    sample: Sample, dbt: WarmDbt, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Metricflow]:
    """A generated department, built as of two instants, and held to its facts as of each."""
    folder = tmp_path_factory.mktemp("sales_activity")
    with (
        pytest.MonkeyPatch.context() as patch,
        _clone(sample.server, sample.owner.dbname, folder, patch, DATABASE) as owner,
    ):
        made = CliRunner().invoke(main, ["generate", "sales", "--seed", "3", "--as-of", AS_OF])
        assert made.exit_code == 0, made.output
        with connect("owner") as session:
            # The one thing known of its project lies ahead; and one of 1948, of no rep.
            session.execute(
                "insert into raw_files.activities (project_id, activity_id, activity_type, rep_id,"
                " scheduled_at) values"
                " ('ahead', '1', 'call', 'new', %s::timestamptz + interval '3 days'),"
                " ('generated', 'old', 'call', null, '1948-01-01')",
                [AS_OF],
            )
        for as_of in (EARLIER, AS_OF):
            dbt.run(*ACTIVITY, variables={"as_of": as_of})
            found = dbt.test(*ACTIVITY, variables={"as_of": as_of})
            assert len(found) > 100
            assert set(found.values()) <= {"pass", "warn"}, found
        yield metricflow(folder / "project", sample, owner.dbname)
    config.settings.cache_clear()


@pytest.mark.parametrize("name", APART)
def test_what_makes_a_cell_adds_up_to_it(name: str) -> None:
    model = models()[name]
    for column, meta in model.columns.items():
        if "numerator" not in meta and "quantile" not in meta:
            continue
        cells = some_cells(model, column)
        assert cells, column
        for cell in cells:
            where = [
                part for key, value in cell["where"].items() for part in ("-w", f"{key}={value}")
            ]
            found = told(name, "-c", column, "--limit", "5000", *where)
            assert len(found["rows"]) == 1
            assert Decimal(found["value"] or 0) == cell["value"], (column, cell)
            assert found["entities"] == len(found["contributions"]), (column, cell)


def test_the_generated_department_has_figures_of_all_kinds() -> None:
    assert len(APART) == 7
    with connect("reader") as session:
        subjects = session.execute(
            "select subject_type, count(distinct subject_id) from kpis.call_volume"
            " where period_type = 'week' group by 1 order by 1"
        ).fetchall()
        ((attained, impossible, unassigned),) = session.execute(
            "select count(target), max(impossible_durations), (select count(*)"
            " from kpis.call_volume where subject_type = 'rep' and subject_id = 'unassigned')"
            " from kpis.list_out_kpis where subject_type = 'rep'"
        )
    assert [kind for kind, _ in subjects] == ["all", "rep", "team"]
    assert dict(subjects)["rep"] > dict(subjects)["team"] > 1
    assert attained > 5
    assert impossible == 1
    assert unassigned > 0


def test_no_table_can_have_two_rows_of_one_key() -> None:
    folder = PROJECT_ROOT / "models/kpis/activity"
    views = {"fct_activities", "fct_calls", "fct_pipeline_items", "fct_item_steps"}
    with connect("reader") as session:
        keys = session.execute(
            "select relname, array_agg(attname::text"
            " order by array_position(indkey::int2[], attnum))"
            " from pg_index join pg_attribute on attrelid = indrelid and attnum = any(indkey)"
            " join pg_class on pg_class.oid = indrelid"
            " where indisprimary and relnamespace = 'kpis'::regnamespace group by relname"
        ).fetchall()
    expected = {path.stem: [*models()[path.stem].grain] for path in folder.glob("*.sql")}
    assert {name: key for name, key in keys if name in expected} == {
        name: grain for name, grain in expected.items() if name not in views
    }


def test_pictures_of_the_readme_can_be_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    plots = [words[1:] for words in lines("README.md", "Try the sales reports") if "plot" in words]
    assert len(plots) == 2
    for words in plots:
        result = CliRunner().invoke(main, [*words, "-w", "project_id=generated"])
        assert result.output.startswith("Wrote "), result.output


def test_metrics_equal_their_kpi_tables(activity: Metricflow) -> None:
    process = activity.run(
        [
            *(
                activity.query([name for names in tables for name in names], group_by)
                for group_by, tables in ACTIVITY_TABLES.items()
            ),
            activity.query(["sales_revenue"], "project"),
        ]
    )
    assert process.returncode == 0, process.stdout + process.stderr
    with connect("reader") as session:
        for group_by, tables in ACTIVITY_TABLES.items():
            groups = len(group_by.split(","))
            for metrics, query in tables.items():
                rows = session.execute(query.encode()).fetchall()
                for position, metric in enumerate(metrics, groups):
                    # A group without any fact is no row of the metric, and 0 in the table.
                    table = {tuple(map(str, r[:groups])): r[position] for r in rows if r[position]}
                    found = activity.cells(group_by, metric)
                    assert {key: value for key, value in found.items() if value} == table, metric
                    assert table, metric
    assert activity.cells("project", "sales_revenue") == {}
