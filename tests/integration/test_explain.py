"""``stageline explain``: a number comes apart into its entities, and they add up to it."""

import json
from decimal import Decimal
from typing import Any

import psycopg
import pytest
from click.testing import CliRunner
from psycopg import sql

from stageline.cli import main
from stageline.database import Connection, connect
from stageline.explain import models
from tests.warm_dbt import WarmDbt

pytestmark = pytest.mark.usefixtures("sample_database")


def explain(*arguments: str) -> str:
    result = CliRunner().invoke(main, ["explain", *arguments])
    assert result.exit_code == 0, result.output
    return result.output


def as_json(*arguments: str) -> dict[str, Any]:
    parsed: dict[str, Any] = json.loads(explain(*arguments, "--json"))
    return parsed


def refusal(*arguments: str) -> str:
    result = CliRunner().invoke(main, ["explain", *arguments])
    assert result.exit_code != 0
    assert result.stderr.count("\n") == 1
    return result.stderr


class TestRate:
    def test_over_several_cells_it_is_the_ratio_of_sums(self) -> None:
        told = as_json(
            *("conversion_funnel", "-c", "overall_rate_pct"),
            *("-w", "month=2024-01-01", "-w", "funnel_stage=won", "--limit", "100"),
        )
        assert Decimal(told["value"]) == Decimal("37.5")
        assert told["entities"] == 8
        parts = {c["key"].split("|")[-1]: c["numerator"] for c in told["contributions"]}
        assert {key for key, adds in parts.items() if adds} == {"lead-01", "lead-02", "lead-06"}

    def test_who_is_not_in_the_denominator_is_left_out(self) -> None:
        told = as_json("ticket_sla_compliance", "-c", "resolution_sla_pct")
        assert told["entities"] == 7
        assert told["left_out"] == {"zero denominator": 3}


def test_excluded_facts_are_told_with_their_reason() -> None:
    told = as_json("revenue_kpis", "-c", "invoiced_amount")
    assert told["left_out"] == {"draft": 1, "void": 1}
    assert Decimal(told["value"]) == 210000


def test_what_adds_nothing_is_left_out_of_a_sum() -> None:
    told = as_json(
        *("conversion_funnel", "-c", "stage_count"),
        *("-w", "month=2024-01-01", "-w", "funnel_stage=won", "--limit", "100"),
    )
    assert told["entities"] == len(told["contributions"]) == int(told["value"]) == 3
    assert told["left_out"] == {"adds nothing": 5}


def test_quantile_shows_the_values_it_is_made_of() -> None:
    told = as_json(
        "pipeline_kpis", "-c", "p50_sales_cycle_seconds", "-w", "facility_id=sample-harbor"
    )
    values = sorted(c["numerator"] for c in told["contributions"])
    assert Decimal(told["value"]) == values[1]


def test_scenarios_and_currencies_are_not_added() -> None:
    told = as_json("weighted_pipeline_scenarios", "-c", "weighted_pipeline_value")
    assert told["value"] is None
    assert "currency" in told["apart"] or "scenario" in told["apart"]


def test_an_entity_in_several_rows_gives_no_total() -> None:
    told = as_json("cohort_retention", "-c", "retained_leads", "-w", "cohort_month=2024-01-01")
    assert told["value"] is None
    assert "several of these rows" in told["apart"]


def test_text_names_formula_unit_shares_and_what_was_left_out() -> None:
    text = explain("revenue_kpis", "-c", "invoiced_amount", "-w", "month=2024-01-01")
    assert "formula  sum of amount" in text
    assert "currency of the row" in text
    assert "57.14" in text  # 40,000 of 70,000
    assert "seed sample_invoices" in text


def test_derived_column_says_so() -> None:
    text = explain("pipeline_kpis", "-c", "sales_velocity_per_day")
    assert "computed from other columns" in text


def test_without_a_column_the_formulas_are_listed() -> None:
    text = explain("conversion_funnel")
    assert "one row per facility_id x rep_id x month x funnel_stage" in text
    assert "100 x reached this stage / leads" in text


class TestEntity:
    def test_by_its_id(self) -> None:
        assert "breached" in explain("ticket_sla_compliance", "--entity", "ticket-02")

    def test_down_to_the_file_it_came_in(self, dbt: WarmDbt) -> None:
        with connect("loader") as session:
            session.execute(
                """
                insert into raw_files.tickets
                    (project_id, ticket_id, priority, status, created_at, source_file, source_line)
                values ('p', 'mine', 'high', 'open', '2024-01-01', 'tickets.csv', 17)
                """
            )
            session.execute(
                """
                insert into ops.loads
                    (source, entity, project_id, file_name, file_sha256, status, finished_at)
                values ('file', 'tickets', 'p', 'tickets.csv', 'abc123', 'success', now()),
                    ('file', 'tickets', 'p', 'other.csv', 'def456', 'success', now())
                """
            )
        dbt.run("stg_tickets+1")
        text = explain("ticket_sla_compliance", "--entity", "mine")
        assert "tickets.csv line 17" in text
        assert "abc123" in text
        assert "def456" not in text


class TestMistakes:
    def test_unknown_table(self) -> None:
        assert "Did you mean conversion_funnel?" in refusal("conversion_funel", "-c", "x")

    def test_unknown_column(self) -> None:
        assert "Did you mean stage_count?" in refusal("conversion_funnel", "-c", "stage_cout")

    def test_unknown_column_in_a_condition(self) -> None:
        assert "no column mont" in refusal(
            "conversion_funnel", "-c", "stage_count", "-w", "mont=2024-01-01"
        )

    def test_condition_without_a_value(self) -> None:
        assert "looks like" in refusal("conversion_funnel", "-c", "stage_count", "-w", "month")

    def test_value_of_another_type(self) -> None:
        assert "invalid input syntax" in refusal(
            "conversion_funnel", "-c", "stage_count", "-w", "month=soon"
        )

    def test_no_such_row(self) -> None:
        assert "has no row where" in refusal(
            "conversion_funnel", "-c", "stage_count", "-w", "month=1999-01-01"
        )

    def test_unknown_entity(self) -> None:
        assert "knows no entity nobody" in refusal("conversion_funnel", "--entity", "nobody")

    def test_sql_in_a_value_is_a_value(self) -> None:
        assert "has no row where" in refusal(
            "conversion_funnel", "-c", "stage_count", "-w", "rep_id=x' or '1'='1"
        )


def test_every_formula_can_be_taken_apart() -> None:
    with connect("reader") as session:
        filled = [
            model
            for name, model in models().items()
            if session.execute(
                sql.SQL("select from {} limit 1").format(sql.Identifier("kpis", name))
            ).fetchone()
            is not None
        ]
    assert len(filled) > 20
    for model in filled:  # the sample has no log of stages: flow is taken apart elsewhere
        for column, meta in model.columns.items():
            if "numerator" in meta or "quantile" in meta:
                explain(model.name, "-c", column, "--limit", "1")


def test_a_cell_that_does_not_follow_from_its_facts_fails_a_test(
    sample_database: Connection, dbt: WarmDbt
) -> None:
    with psycopg.connect(**sample_database.libpq()) as session:
        session.execute(
            "update kpis.rep_activity_by_channel set responses = responses + 1"
            " where rep_id = 'rep-ana' and channel = 'phone' and month = '2024-01-01'"
        )
        session.execute(
            "delete from kpis.conversion_funnel where rep_id = 'rep-cho' and month = '2024-02-01'"
        )
    found = dbt.test("test_name:contributions_sum_to_cells")
    failed = {name for name, status in found.items() if status == "fail"}
    assert len(failed) == 2
    assert all("rep_activity" in name or "conversion_funnel" in name for name in failed)
