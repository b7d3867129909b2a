"""The metrics of the semantic layer: each gives what its KPI table gives, and no more.

MetricFlow is asked as an analyst asks it, through the commands of ``mf``; several commands share a
child process, because importing it takes seconds.
"""

import csv
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from stageline.config import PROJECT_ROOT
from stageline.database import Connection, connect
from tests.conftest import Sample

#: ``mf``, for the commands on its standard input, with one configuration for all of them.
MF = """
import json, sys
from dbt_metricflow.cli.cli_configuration import CLIConfiguration
from dbt_metricflow.cli.main import cli

configuration = CLIConfiguration()
for command in json.load(sys.stdin):
    cli.main(command, prog_name="mf", obj=configuration, standalone_mode=False)
"""

FACILITY = "facility,metric_time__month"
PRIORITY = "facility,ticket__priority,metric_time__month"
COMPONENT = "facility,health_component__component,metric_time__month"
CURRENCY = "facility,currency,metric_time__month"
SCENARIO = "facility,currency,pipeline_scenario__scenario,metric_time__month"

#: For each grouping, what metrics have to equal: the groups' columns first, then one for each.
KPI_TABLES: dict[str, dict[tuple[str, ...], str]] = {
    FACILITY: {
        ("leads", "sql_leads", "won_leads"): """
            select
                facility_id, month,
                sum(stage_count) filter (where funnel_stage = 'lead'),
                sum(stage_count) filter (where funnel_stage = 'sql'),
                sum(stage_count) filter (where funnel_stage = 'won')
            from kpis.conversion_funnel group by 1, 2
        """,
        ("lead_to_sql_rate", "lead_to_won_rate", "tickets", "ticket_compliance"): """
            select facility_id, month, sql_rate_pct, won_rate_pct, tickets, ticket_compliance_pct
            from kpis.combined_kpis
        """,
        ("outreach", "outreach_answered", "response_rate"): """
            select facility_id, month, total_outreach, responses, response_rate_pct
            from kpis.outreach_kpis
        """,
        ("first_response_sla", "resolution_sla"): """
            select
                facility_id, month,
                round(100.0 * sum(first_responses_met) / nullif(sum(first_responses_judged), 0), 2),
                round(100.0 * sum(resolutions_met) / nullif(sum(resolutions_judged), 0), 2)
            from kpis.ticket_sla_compliance group by 1, 2
        """,
        ("csat_responses", "csat_average", "csat_average_change"): """
            select facility_id, month, responses, avg_score, month_over_month_change
            from kpis.satisfaction_rollups where survey_type = 'csat'
        """,
        ("nps_responses", "nps_promoters", "nps_detractors", "nps"): """
            select facility_id, month, responses, promoters, detractors, nps
            from kpis.satisfaction_rollups where survey_type = 'nps'
        """,
        ("applications_reviewed", "applications_compliant", "compliance_rate"): """
            select
                facility_id, month,
                reviewed_applications, compliant_applications, compliance_rate_pct
            from kpis.compliance_kpis
        """,
        ("overall_health",): """
            select facility_id, month, overall_health_score from kpis.health_scores
        """,
    },
    PRIORITY: {
        (
            "tickets",
            "first_responses_judged",
            "first_responses_met",
            "first_response_sla",
            "resolutions_judged",
            "resolutions_met",
            "resolution_sla",
            "tickets_judged",
            "tickets_met",
            "ticket_compliance",
        ): """
            select
                facility_id, priority, month,
                tickets,
                first_responses_judged, first_responses_met, first_response_sla_pct,
                resolutions_judged, resolutions_met, resolution_sla_pct,
                tickets_judged, tickets_met, ticket_compliance_pct
            from kpis.ticket_sla_compliance
        """
    },
    COMPONENT: {
        ("overall_health",): """
            select facility_id, 'compliance', month, compliance_score from kpis.health_scores
            union all
            select facility_id, 'pipeline', month, pipeline_health from kpis.health_scores
            union all
            select facility_id, 'conversion', month, conversion_health from kpis.health_scores
            union all
            select facility_id, 'sla', month, sla_health from kpis.health_scores
            union all
            select facility_id, 'satisfaction', month, satisfaction_health from kpis.health_scores
        """
    },
    CURRENCY: {
        ("pipeline_value", "weighted_pipeline_value"): """
            select
                facility_id, currency, month,
                sum(total_pipeline_value), sum(weighted_pipeline_value)
            from kpis.weighted_pipeline_scenarios where scenario = 'weighted' group by 1, 2, 3
        """,
        ("opportunities_won", "opportunities_closed", "win_rate"): """
            select
                facility_id, currency, month,
                won_opportunities, won_opportunities + lost_opportunities, win_rate_pct
            from kpis.pipeline_kpis
        """,
        ("invoiced_amount", "paid_amount", "collection_rate"): """
            select facility_id, currency, month, invoiced_amount, paid_amount, collection_rate_pct
            from kpis.revenue_kpis
        """,
    },
    SCENARIO: {
        ("scenario_pipeline_value",): """
            select facility_id, currency, scenario, month, sum(weighted_pipeline_value)
            from kpis.weighted_pipeline_scenarios group by 1, 2, 3, 4
        """
    },
}

#: The same of flow, which the sample has nothing of: held against a log of its own.
FLOW_TABLES: dict[str, dict[tuple[str, ...], str]] = {
    "version,project,metric_time__day": {
        (
            *("arrivals", "throughput", "lead_time", "lead_time_working", "lead_time_median"),
            "wip",
        ): """
            select
                report_version, project_id, date_day, started, finished,
                avg_age_at_finish_seconds, avg_age_at_finish_working_seconds,
                p50_age_at_finish_seconds, wip
            from kpis.flow_throughput
        """
    },
    "version,project,journey__entity_id": {
        ("flow_efficiency",): """
            select report_version, project_id, entity_id, flow_efficiency_pct
            from kpis.deal_metrics
        """
    },
    "project,order_stage_visit__stage_group_id,metric_time__day": {
        ("order_visits_judged", "order_visits_over", "order_sla_compliance"): """
            select
                project_id, stage_group_id, period_start, sum(judged_visits), sum(over_visits),
                round(
                    100.0 * (sum(judged_visits) - sum(over_visits))
                    / nullif(sum(judged_visits), 0), 2
                )
            from kpis.stage_time_by_period where period_type = 'day' group by 1, 2, 3
        """
    },
}
#: Semantic models of flow.
FLOW_MODELS = {"deal_moves", "flow_days", "journeys", "order_stage_visits"}

#: The same of sales activity, held against what the generator makes.
ACTIVITY_TABLES: dict[str, dict[tuple[str, ...], str]] = {
    "project,rep,metric_time__day": {
        ("calls_booked", "calls_due", "calls_held", "call_held_rate", "calls_conducted"): """
            select
                project_id, subject_id, period_start,
                booked, due, held, held_rate_pct, conducted
            from kpis.call_volume where subject_type = 'rep' and period_type = 'day'
        """
    },
    "project,team,metric_time__month": {
        ("proposals", "agreements"): """
            select project_id, subject_id, month, proposals, agreements
            from kpis.agreement_kpis where subject_type = 'team'
        """,
        (
            *("lists_out", "lists_due", "lists_on_time", "list_on_time_rate", "lists_with_sale"),
            "list_first_sale_rate",
        ): """
            select
                project_id, subject_id, month,
                lists_out, lists_due_by_now, sent_on_time, on_time_pct, lists_with_sale,
                first_sale_conversion_pct
            from kpis.list_out_kpis where subject_type = 'team'
        """,
    },
    "project,currency,metric_time__month": {
        ("sales", "sales_revenue"): """
            select project_id, currency, month, sales, revenue
            from kpis.revenue_efficiency where subject_type = 'all'
        """
    },
    "project,alert__rule,alert__priority": {
        ("alerts_active",): """
            select project_id, rule, priority, count(*)
            from kpis.active_alerts group by 1, 2, 3
        """
    },
    "project,rep,metric_time__week": {
        ("leaderboard_score",): """
            select project_id, subject_id, period_start, score
            from kpis.bdr_leaderboard where subject_type = 'rep' and period_type = 'week'
        """
    },
    "project,rep,target__kpi,target__period_type,currency,metric_time__month": {
        ("target_attainment_rate",): """
            select
                project_id, subject_id, kpi, period_type, currency,
                cast(date_trunc('month', period_start) as date),
                round(100 * sum(actual) / sum(target), 2)
            from kpis.kpi_target_attainment where subject_type = 'rep'
            group by 1, 2, 3, 4, 5, 6
        """
    },
    "project,backtest__kpi,metric_time__month": {
        ("forecast_backtests", "forecast_backtests_inside", "forecast_inside_rate"): """
            select
                project_id, kpi, month, count(*), sum(is_inside),
                round(100.0 * sum(is_inside) / count(*), 2)
            from kpis.sales_forecast_backtest group by 1, 2, 3
        """
    },
}
#: Semantic models of sales activity.
ACTIVITY_MODELS = {
    "calls",
    "item_steps",
    "activity_sales",
    "alerts",
    "standings",
    "targets",
    "backtests",
}

MONEY = (
    "pipeline_value",
    "weighted_pipeline_value",
    "invoiced_amount",
    "paid_amount",
    "collection_rate",
)

#: The facts, and the column of their key that a copy has to change.
FACTS = {
    "fct_leads": "lead_key",
    "fct_opportunities": "opportunity_key",
    "fct_outreach": "outreach_key",
    "fct_pipeline_deals": "pipeline_deal_key",
    "fct_pipeline_scenarios": "pipeline_scenario_key",
    "fct_invoices": "invoice_key",
    "fct_tickets": "ticket_key",
    "fct_satisfaction": "response_key",
    "fct_applications": "application_key",
    "fct_health_components": "component",
}

Cells = dict[tuple[str, ...], Decimal]


@dataclass(frozen=True)
class Metricflow:
    """A dbt project as ``mf`` needs it: settings, profile and the manifest of one database.

    Attributes:
        folder: The project's folder.
        environment: Where the database is.
    """

    folder: Path
    environment: Mapping[str, str]

    def run(self, commands: Iterable[list[str]]) -> subprocess.CompletedProcess[str]:
        """Runs commands of ``mf``, in one child process, up to the first that fails."""
        return subprocess.run(
            [sys.executable, "-c", MF],
            cwd=self.folder,
            env={**os.environ, **self.environment},
            input=json.dumps(list(commands)),
            capture_output=True,
            text=True,
            timeout=240,
        )

    def query(self, metrics: Iterable[str], group_by: str) -> list[str]:
        """The command that asks for ``metrics`` and writes them down for ``cells``."""
        names = ",".join(metrics)
        return [
            *("query", "--metrics", names, "--group-by", group_by),
            *("--csv", str(self._file(group_by))),
        ]

    def cells(self, group_by: str, metric: str) -> Cells:
        """What the query gave for a metric, by group; groups without a value are left out."""
        with self._file(group_by).open(newline="") as file:
            return {
                tuple(_day(row[column]) for column in group_by.split(",")): Decimal(row[metric])
                for row in csv.DictReader(file)
                if row[metric]
            }

    def _file(self, group_by: str) -> Path:
        return self.folder / f"{group_by.replace(',', '-')}.csv"


def metricflow(folder: Path, sample: Sample, dbname: str) -> Metricflow:
    """``mf`` on the sample database or on a copy of it."""
    (folder / "target").mkdir(parents=True)
    for name in ("dbt_project.yml", "profiles.yml"):
        (folder / name).symlink_to(PROJECT_ROOT / name)
    # The manifest names the database, and `mf` reads it from this path only.
    manifest = (sample.target_path / "semantic_manifest.json").read_text()
    built = json.loads(manifest)["semantic_models"][0]["node_relation"]["database"]
    (folder / "target" / "semantic_manifest.json").write_text(
        re.sub(rf"\b{re.escape(built)}\b", dbname, manifest)
    )
    environment = {
        "STAGELINE_DBT_HOST": sample.owner.host,
        "STAGELINE_DBT_PORT": str(sample.owner.port),
        "STAGELINE_DBT_USER": "stageline_transformer",
        "STAGELINE_DBT_PASSWORD": sample.server.credentials["stageline_transformer"],
        "STAGELINE_DBT_DBNAME": dbname,
        "DBT_LOG_PATH": str(folder / "logs"),
        # `mf` asks the package index for a newer version of itself; nobody listens at this port.
        "HTTPS_PROXY": "http://127.0.0.1:9",
    }
    return Metricflow(folder, environment)


def metrics_by(group_by: str) -> list[str]:
    """The metrics that are held against KPI tables in a grouping."""
    return [metric for metrics in KPI_TABLES[group_by] for metric in metrics]


def _day(value: str) -> str:
    return value.removesuffix(" 00:00:00")


@dataclass(frozen=True)
class Answers:
    """What ``mf`` said of the sample database."""

    metricflow: Metricflow
    process: subprocess.CompletedProcess[str]


@pytest.fixture(scope="module")
def answers(sample: Sample, tmp_path_factory: pytest.TempPathFactory) -> Answers:
    folder = tmp_path_factory.mktemp("metricflow") / "project"
    mf = metricflow(folder, sample, sample.owner.dbname)
    queries = [mf.query(metrics_by(group_by), group_by) for group_by in KPI_TABLES]
    # Last: where it fails, `mf` ends.
    return Answers(mf, mf.run([*queries, ["validate-configs", "--show-all"]]))


@pytest.fixture(scope="module")
def manifest(sample: Sample) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(
        (sample.target_path / "semantic_manifest.json").read_text()
    )
    return content


def test_configuration_is_valid(answers: Answers) -> None:
    said = answers.process.stdout + answers.process.stderr
    assert answers.process.returncode == 0, said
    found = re.findall(r"\(ERRORS: (\d+), FUTURE_ERRORS: (\d+), WARNINGS: (\d+)\)", said)
    assert len(found) == 6, said  # semantics, models, dimensions, entities, measures, metrics
    assert set(found) == {("0", "0", "0")}, said


@pytest.mark.parametrize(
    ("group_by", "metrics"),
    [(group_by, metrics) for group_by, tables in KPI_TABLES.items() for metrics in tables],
    ids=lambda value: value if isinstance(value, str) else " ".join(value),
)
def test_metrics_equal_their_kpi_table(
    answers: Answers, sample: Sample, group_by: str, metrics: tuple[str, ...]
) -> None:
    with psycopg.connect(**sample.owner.libpq()) as session:
        rows = session.execute(KPI_TABLES[group_by][metrics]).fetchall()

    for position, metric in enumerate(metrics, len(group_by.split(","))):
        table = {
            tuple(map(str, row[: -len(metrics)])): row[position]
            for row in rows
            if row[position] is not None
        }
        assert table, metric
        assert answers.metricflow.cells(group_by, metric) == table, metric


def test_every_headline_is_held_against_a_table(manifest: dict[str, Any]) -> None:
    inputs = {
        each["name"]
        for metric in manifest["metrics"]
        for each in metric["type_params"]["metrics"] or []
    }
    headlines = {metric["name"] for metric in manifest["metrics"]} - inputs
    checked = {metric for group_by in KPI_TABLES for metric in metrics_by(group_by)}
    for groups in (FLOW_TABLES, ACTIVITY_TABLES):
        checked |= {metric for tables in groups.values() for names in tables for metric in names}
    assert headlines <= checked


def test_everything_has_a_label_and_a_description(manifest: dict[str, Any]) -> None:
    models = manifest["semantic_models"]
    things = [*models, *manifest["metrics"], *manifest["saved_queries"]]
    for model in models:
        things += [*model["entities"], *model["dimensions"], *model["measures"]]

    assert len(models) == len(FACTS) + len(FLOW_MODELS) + len(ACTIVITY_MODELS)
    blank = [
        thing["name"]
        for thing in things
        if not (thing["label"] or "").strip() or not (thing["description"] or "").strip()
    ]
    assert blank == []


def test_rows_left_out_and_other_currencies_change_nothing(
    sample: Sample,
    sample_database: Connection,
    answers: Answers,
    tmp_path: Path,
) -> None:
    with connect("transformer") as session:
        for fact, key in FACTS.items():
            _copy(session, fact, key, "left-out", {"excluded_reason": "deleted"})
        for fact in ("fct_pipeline_deals", "fct_pipeline_scenarios", "fct_invoices"):
            _copy(session, fact, FACTS[fact], "in-dollars", {"currency": "USD"})
    mf = metricflow(tmp_path / "project", sample, sample_database.dbname)
    by_facility = metrics_by(FACILITY)

    process = mf.run(
        [
            mf.query([*by_facility, *MONEY], FACILITY),
            mf.query(metrics_by(CURRENCY), CURRENCY),
            mf.query(["scenario_pipeline_value"], "currency"),
        ]
    )

    assert process.returncode == 0, process.stdout + process.stderr
    for metric in by_facility:
        assert mf.cells(FACILITY, metric) == answers.metricflow.cells(FACILITY, metric), metric
    for metric in MONEY:
        before = answers.metricflow.cells(CURRENCY, metric)
        now = mf.cells(CURRENCY, metric)
        assert {key: now[key] for key in before} == before, metric
        assert any(currency == "USD" for _, currency, _ in now), metric
        # Two currencies in a group: no figure, rather than a sum of both.
        assert mf.cells(FACILITY, metric) == {}, metric
    # Scenarios are not added up either.
    assert mf.cells("currency", "scenario_pipeline_value") == {}


def _copy(
    session: psycopg.Connection[Any], fact: str, key: str, suffix: str, values: dict[str, str]
) -> None:
    """Adds a copy of each row that counts, with a key of its own and with ``values``."""
    table = sql.Identifier("kpis", fact)
    session.execute(
        sql.SQL(
            "insert into {table}"
            " select (jsonb_populate_record(null::{table}, to_jsonb(fact) || %s::jsonb"
            " || jsonb_build_object({key}, fact.{column} || %s))).*"
            " from {table} as fact where fact.excluded_reason is null"
        ).format(table=table, key=sql.Literal(key), column=sql.Identifier(key)),
        (json.dumps(values), f" {suffix}"),
    )
