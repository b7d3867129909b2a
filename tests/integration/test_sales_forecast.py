"""The forecast of the month, held to what came; and figures of sales as they stood on a date."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime

import psycopg
import pytest
from click.testing import CliRunner

from stageline import config
from stageline.cli import main
from stageline.database import connect
from tests.conftest import DATABASE, Sample, _clone
from tests.warm_dbt import WarmDbt

#: Midnight in Kyiv, where generated reps work, of a working day with a back-test; and a later one.
EARLIER, AS_OF = "2026-07-14T21:00:00+00:00", "2026-09-20T09:00:00+00:00"
DAY = date(2026, 7, 15)
SEEDS = (11, 12, 13, 14)

#: Tables that are kept as they stood: what is compared of each.
WATCHED = {
    "pipeline_health": "project_id, subject_type, subject_id, calls_this_week, lists_overdue",
    "bdr_leaderboard": "project_id, subject_type, subject_id, period_type, period_start,"
    " score, rank",
    "kpi_target_attainment": "project_id, subject_type, subject_id, kpi, currency, period_type,"
    " period_start, actual, target, status",
}
MODELS = [
    f"+{model},path:models/{layer}/activity"
    for model in ("sales_forecast", *WATCHED)
    for layer in ("intermediate", "kpis")
]
_CELL = "project_id, subject_type, subject_id, kpi, currency"

Cells = dict[tuple[str, ...], tuple[float, float, float]]
Figures = list[tuple[object, ...]]


@dataclass(frozen=True)
class Earlier:
    """What was told at the earlier instant.

    Attributes:
        forecasts: Of each cell what was expected of the rest of the month, its lower and upper end.
        figures: Rows of the tables that are kept as they stood.
        at: When the tables held that.
    """

    forecasts: Cells
    figures: dict[str, Figures]
    at: datetime


@pytest.fixture(scope="module")
def made_earlier(
    sample: Sample, dbt: WarmDbt, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Earlier]:
    """Departments, built as of two instants; gives what was told at the first."""
    folder = tmp_path_factory.mktemp("forecast")
    with (
        pytest.MonkeyPatch.context() as patch,
        _clone(sample.server, sample.owner.dbname, folder, patch, DATABASE),
    ):
        for seed in SEEDS:
            words = f"generate sales --project s{seed} --seed {seed} --leads 250 --days-back 240"
            made = CliRunner().invoke(main, [*words.split(), "--as-of", AS_OF])
            assert made.exit_code == 0, made.output
        snapshots = [f"{model}_snapshot" for model in WATCHED]
        dbt.run(*MODELS, *snapshots, variables={"as_of": EARLIER})
        with connect("reader") as session:
            forecasts = cells(
                session,
                "select {}, expected - so_far, low - so_far, high - so_far"
                " from kpis.sales_forecast",
            )
            kept = {model: figures(session, model) for model in WATCHED}
            ((at,),) = session.execute("select clock_timestamp() at time zone 'UTC'").fetchall()
        dbt.run(*MODELS, *snapshots, variables={"as_of": AS_OF})
        yield Earlier(forecasts, kept, at)
    config.settings.cache_clear()


def cells(session: psycopg.Connection[tuple[object, ...]], query: str, *given: object) -> Cells:
    """What ``query`` tells of each cell, whose key stands for ``{}``."""
    found = session.execute(query.format(_CELL).encode(), given).fetchall()
    return {row[:5]: tuple(map(float, row[5:])) for row in found}  # type: ignore[misc, arg-type]


def figures(session: psycopg.Connection[tuple[object, ...]], model: str) -> Figures:
    """What a table holds."""
    columns = WATCHED[model]
    query = f"select {columns} from kpis.{model} order by {columns}"  # noqa: S608 - our names
    return session.execute(query.encode()).fetchall()


@pytest.mark.usefixtures("made_earlier")
def test_four_of_five_months_end_within_the_interval() -> None:
    with connect("reader") as session:
        shares = session.execute(
            "select kpi, count(*), 100 * avg(is_inside), count(distinct made_for_date),"
            " count(distinct project_id)"
            " from kpis.sales_forecast_backtest where project_id like 's1_' group by 1 order by 1"
        ).fetchall()
        told = session.execute(
            "select sum(backtests), sum(backtests_inside) from kpis.sales_forecast"
        ).fetchall()
        asked = session.execute(
            "select count(*), sum(is_inside) from kpis.sales_forecast_backtest join"
            " kpis.sales_forecast using (project_id, subject_type, subject_id, kpi, currency)"
        ).fetchall()
    assert [kpi for kpi, *_ in shares] == ["agreements", "lists_out", "revenue"]
    for kpi, forecasts, share, days, projects in shares:
        assert forecasts > 500, kpi
        assert (days, projects) == (20, len(SEEDS)), kpi
        assert 70 <= share <= 90, (kpi, share)
    assert told == asked


def test_a_forecast_is_the_same_whatever_was_recorded_later(made_earlier: Earlier) -> None:
    with connect("reader") as session:
        backtests = cells(
            session,
            "select {}, expected_more, low_more, high_more from kpis.sales_forecast_backtest"
            " where made_for_date = %s",
            DAY,
        )
    assert len(made_earlier.forecasts) > 100
    # Of what came up later alone, nothing was expected.
    nothing = (0.0, 0.0, 0.0)
    for cell in made_earlier.forecasts.keys() | backtests.keys():
        assert made_earlier.forecasts.get(cell, nothing) == backtests.get(cell, nothing), cell
    assert sum(cell != nothing for cell in made_earlier.forecasts.values()) > 100


@pytest.mark.parametrize("model", WATCHED)
def test_figures_are_kept_as_they_stood(made_earlier: Earlier, model: str) -> None:
    with connect("reader") as session:
        stood = session.execute(
            f"""
            select {WATCHED[model]} from snapshots.{model}_snapshot
            where dbt_valid_from <= %s and coalesce(dbt_valid_to, 'infinity') > %s
            order by {WATCHED[model]}
            """.encode(),  # noqa: S608 - our names
            [made_earlier.at] * 2,
        ).fetchall()
        stands = session.execute(
            f"""
            select {WATCHED[model]} from snapshots.{model}_snapshot
            where dbt_valid_to is null and dbt_is_deleted = 'False'
            order by {WATCHED[model]}
            """.encode()  # noqa: S608 - our names
        ).fetchall()
        assert stands == figures(session, model) != stood
    assert stood == made_earlier.figures[model]
    assert len(stood) > 40
