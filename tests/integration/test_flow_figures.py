"""Figures of flow come apart into deals and deliveries, and its metrics equal their KPI tables."""

import json
import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest
from click.testing import CliRunner
from psycopg import sql

from jobs.archive import archive
from jobs.archive_config import ArchiveConfig
from stageline import config
from stageline.cli import main
from stageline.database import connect
from stageline.explain import Model, models
from tests.conftest import DATABASE, Sample, _clone
from tests.integration.test_semantic_layer import FLOW_TABLES, Metricflow, metricflow
from tests.warm_dbt import WarmDbt

AS_OF = datetime(2026, 6, 1, 12, tzinfo=UTC)
VARIABLES = {"as_of": AS_OF.isoformat()}
FLOW = ("path:models/intermediate/flow", "path:models/kpis/flow")
STAGES = ("1", "2", "3", "4", "5")
GROUPS = dict(zip(STAGES, ("new", "new", "work", "work", "done"), strict=True))
#: Sub-stages of the stages: entry and exit of the first major stage and of the last.
SUBSTAGES = (
    *("LEAD.GENERATED", "LEAD.RFQ_RECEIVED", "ORDER.RECEIVED", "PAYMENT.INVOICED"),
    "PAYMENT.RECEIVED",
)
#: The KPI tables of flow that are made of facts.
APART = {
    name: model
    for name, model in models().items()
    if model.fact is not None and ("report_version" in model.grain or "stage" in model.fact)
}


def _land(session: psycopg.Connection[Any]) -> None:
    dice = random.Random(7)  # noqa: S311 - the same log in every run
    for number in range(240):
        source, project, kind = dice.choice(
            [("pipedrive", "sales", "deal"), ("keycrm", "shop", "order")]
        )
        at = AS_OF - timedelta(seconds=dice.randrange(120 * 86400))
        delivery, stage = UUID(int=number + 1), dice.choice(STAGES)
        session.execute(
            "insert into raw.deliveries (delivery_id, sender, source_system, project_id,"
            " received_at, check_ids, body_bytes, body_sha256, entity_ids)"
            " values (%s, %s, %s, %s, %s, '{}', 0, sha256(''), '{}')",
            (delivery, source, source, project, at),
        )
        session.execute(
            "insert into raw.delivery_bodies (delivery_id, received_at, headers, body)"
            " values (%s, %s, '{}', '')",
            (delivery, at),
        )
        session.execute(
            "insert into raw.stage_events (source_system, project_id, entity_type, entity_id,"
            " stage_id, stage_group_id, entered_at, delivery_id)"
            " values (%s, %s, %s, %s, %s, %s, %s, %s)",
            (
                *(source, project, kind, str(dice.randrange(30)), stage, GROUPS[stage]),
                *(at, delivery),
            ),
        )


def _settle(session: psycopg.Connection[Any]) -> None:
    session.execute(
        "insert into settings.report_versions (report_version, state, published_at)"
        " values (1, 'published', now()), (2, 'published', now())"
    )
    for source, project, zone in (
        ("pipedrive", "sales", "America/New_York"),
        ("keycrm", "shop", "Europe/Kyiv"),
    ):
        session.execute(
            "insert into settings.projects (source_system, project_id, timezone)"
            " values (%s, %s, %s)",
            (source, project, zone),
        )
        session.execute(
            "insert into settings.stage_group_dictionary values (%s, %s, 'done', 'Done', 'done')",
            (source, project),
        )
        session.execute(
            "insert into settings.sla_stage_rules"
            " (source_system, project_id, group_id, limit_seconds) values (%s, %s, 'new', 864000)",
            (source, project),
        )
        for stage, key in zip(STAGES, SUBSTAGES, strict=True):
            session.execute(
                "insert into settings.stage_map_scd"
                " (report_version, source_system, project_id, stage_id, sub_key)"
                " select version, %s, %s, %s, %s from generate_series(1, 2) as version",
                (source, project, stage, key),
            )


@pytest.fixture(scope="module", autouse=True)
def flow(
    sample: Sample, dbt: WarmDbt, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Metricflow]:
    """Deals and orders under two versions of a map, built, and held to their facts."""
    folder = tmp_path_factory.mktemp("flow_figures")
    with (
        pytest.MonkeyPatch.context() as patch,
        _clone(sample.server, sample.owner.dbname, folder, patch, DATABASE) as owner,
    ):
        with connect("owner") as session:
            _settle(session)
            _land(session)
        dbt.run(*FLOW, variables=VARIABLES)
        found = dbt.test(*FLOW, variables=VARIABLES)
        assert len(found) > 30
        assert set(found.values()) <= {"pass", "warn"}
        yield metricflow(folder / "project", sample, owner.dbname)
    config.settings.cache_clear()


def told(*arguments: str) -> dict[str, Any]:
    result = CliRunner().invoke(main, ["explain", *arguments, "--json"])
    assert result.exit_code == 0, result.output
    parsed: dict[str, Any] = json.loads(result.stdout)
    return parsed


def some_cells(model: Model, column: str) -> list[dict[str, Any]]:
    """A few cells with a figure, most of them large."""
    with connect("reader") as session:
        cursor = session.execute(
            sql.SQL(
                "select {}, {} from kpis.{} where {} is not null order by 2 desc, 1 limit 2"
            ).format(
                sql.SQL("jsonb_build_object({})").format(
                    sql.SQL(", ").join(
                        part
                        for name in model.grain
                        for part in (sql.Literal(name), sql.Identifier(name))
                    )
                ),
                sql.Identifier(column),
                sql.Identifier(model.name),
                sql.Identifier(column),
            )
        )
        return [{"where": where, "value": value} for where, value in cursor.fetchall()]


@pytest.mark.parametrize("name", sorted(APART))
def test_what_makes_a_cell_adds_up_to_it(name: str) -> None:
    model = APART[name]
    for column, meta in model.columns.items():
        if "numerator" not in meta and "quantile" not in meta:
            continue
        cells = some_cells(model, column)
        assert cells or column.startswith("before_"), column
        for cell in cells:
            found = told(
                *(name, "-c", column, "--limit", "1000"),
                *(
                    part
                    for key, value in cell["where"].items()
                    for part in ("-w", f"{key}={value}")
                ),
            )
            assert len(found["rows"]) == 1
            assert Decimal(found["value"] or 0) == cell["value"], (column, cell)
            assert found["entities"] == len(found["contributions"]), (column, cell)


def test_a_deal_is_followed_down_to_the_deliveries_that_told_of_it() -> None:
    with connect("reader") as session:
        ((key, visits),) = session.execute(
            "select entity_id, visits from kpis.deal_metrics"
            " where source_system = 'pipedrive' order by visits desc, 1 limit 1"
        ).fetchall()
    found = told("deal_metrics", "--entity", f"1|pipedrive|sales|deal|{key}")
    assert found["fact"]["entity_id"] == key
    assert len(found["events"]) == visits > 3
    assert {each["delivery_id"] for each in found["deliveries"]} == {
        each["delivery_id"] for each in found["events"]
    }
    assert all(each["sender"] == "pipedrive" for each in found["deliveries"])


@pytest.mark.parametrize("table", ["orders_current", "stage_time_by_period"])
def test_an_order_shows_its_statuses(table: str) -> None:
    with connect("reader") as session:
        rows = session.execute(
            "select source_system || '|' || project_id || '|' || order_id"
            " || case when %s then '' else '|' || group_visit_number || '|' || period_type end,"
            " order_id from kpis.fct_order_stage_visits where period_type = 'week' order by 1",
            [table == "orders_current"],
        ).fetchall()
    found = told(table, "--entity", rows[0][0])
    assert found["fact"]["order_id"] == rows[0][1]
    assert found["events"]
    assert found["deliveries"]


def test_an_id_that_stands_for_several_rows_is_refused_with_their_keys() -> None:
    with connect("reader") as session:
        ((key,),) = session.execute(
            "select entity_id from kpis.fct_stage_exits group by 1 having count(*) > 1 limit 1"
        ).fetchall()
    result = CliRunner().invoke(main, ["explain", "flow_stage_kpis", "--entity", key])
    assert result.exit_code != 0
    assert "stands for several rows of fct_stage_exits; name one: 1|" in result.stderr


def test_metrics_equal_their_kpi_tables_and_never_add_versions(flow: Metricflow) -> None:
    queries = [
        flow.query([name for names in tables for name in names], group_by)
        for group_by, tables in FLOW_TABLES.items()
    ]
    process = flow.run([*queries, flow.query(["throughput", "wip", "flow_efficiency"], "project")])
    assert process.returncode == 0, process.stdout + process.stderr

    with connect("reader") as session:
        for group_by, tables in FLOW_TABLES.items():
            groups = len(group_by.split(","))
            for metrics, query in tables.items():
                rows = session.execute(query).fetchall()
                for position, metric in enumerate(metrics, groups):
                    # A group without any fact is no row of the metric, and 0 in the table.
                    table = {tuple(map(str, r[:groups])): r[position] for r in rows if r[position]}
                    found = flow.cells(group_by, metric)
                    assert {key: value for key, value in found.items() if value} == table, metric
                    assert table, metric
    for metric in ("throughput", "wip", "flow_efficiency"):
        assert flow.cells("project", metric) == {}, metric


def _kpis() -> dict[str, str]:
    """All tables of KPIs, without when they were built."""
    with connect("reader") as session:
        names = session.execute(
            "select relname from pg_class"
            " where relnamespace = 'kpis'::regnamespace and relkind = 'r' order by 1"
        ).fetchall()
        found = {}
        for (name,) in names:
            ((rows,),) = session.execute(
                sql.SQL(
                    "select string_agg(told, ';' order by told) from kpis.{} as one"
                    " cross join lateral (select (to_jsonb(one) - 'updated_at')::text) as x (told)"
                ).format(sql.Identifier(name))
            ).fetchall()
            found[name] = rows or ""
    return found


def test_kpis_are_the_same_when_what_deliveries_said_is_archived(
    dbt: WarmDbt, tmp_path: Path
) -> None:
    before = _kpis()
    assert sum(map(bool, before.values())) > 20
    files = list(archive(ArchiveConfig(tmp_path, 1), AS_OF.replace(year=2100)))
    assert sum(each.delivery_count for each in files) == 240
    dbt.run(*FLOW, variables=VARIABLES, full_refresh=True)
    assert _kpis() == before

    with connect("reader") as session:
        ((key,),) = session.execute(
            "select max(entity_id) from kpis.deal_metrics where source_system = 'pipedrive'"
        ).fetchall()
    result = CliRunner().invoke(
        main, ["explain", "deal_metrics", "--entity", f"1|pipedrive|sales|deal|{key}"]
    )
    assert "deliveries are archived, of pipedrive/sales in 2026-0" in result.stderr
    assert "stageline archive restore --project sales --month 2026-0" in result.stderr
