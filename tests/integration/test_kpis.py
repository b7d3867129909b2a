"""The KPI tables on the sample data: reference numbers, snapshots, as_of, subsets, keys."""

import json
import shutil
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from jobs.build import BuildError, build
from stageline.config import PROJECT_ROOT
from stageline.database import Connection, connect
from tests.conftest import Sample
from tests.warm_dbt import WarmDbt

KPIS = {
    "cohort_retention",
    "combined_kpis",
    "compliance_kpis",
    "conversion_funnel",
    "health_scores",
    "outreach_kpis",
    "pipeline_kpis",
    "rep_activity_by_channel",
    "revenue_kpis",
    "satisfaction_rollups",
    "ticket_sla_compliance",
    "weighted_pipeline_scenarios",
}


def ask(owner: Connection, query: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(**owner.libpq()) as session:
        return session.execute(query).fetchall()


class TestReferenceNumbers:
    """The table of kpis.md, asked as a BI tool would."""

    def test_funnel(self, sample: Sample) -> None:
        rows = ask(
            sample.owner,
            """
            select month, funnel_stage, sum(stage_count),
                100 * sum(stage_count) / sum(lead_count)
            from kpis.conversion_funnel
            where facility_id like 'sample-%' and funnel_stage in ('lead', 'sql', 'won')
            group by month, funnel_stage
            """,
        )
        assert {(m, s): (n, round(p, 2)) for m, s, n, p in rows} == {
            (date(2024, 1, 1), "lead"): (8, 100),
            (date(2024, 1, 1), "sql"): (4, 50),
            (date(2024, 1, 1), "won"): (3, Decimal("37.5")),
            (date(2024, 2, 1), "lead"): (4, 100),
            (date(2024, 2, 1), "sql"): (3, 75),
            (date(2024, 2, 1), "won"): (1, 25),
        }

    def test_health_and_sla_are_means_over_facilities(self, sample: Sample) -> None:
        rows = ask(
            sample.owner,
            """
            select month, avg(sla_health), avg(overall_health_score)
            from kpis.health_scores where facility_id like 'sample-%'
            group by month order by month
            """,
        )
        (_, january_sla, january), (_, february_sla, february) = rows
        assert (january_sla, february_sla) == (95, 100)
        assert abs(january - 73) <= Decimal("0.5")
        assert abs(february - 78) <= Decimal("0.5")

    def test_one_facility_misses_one_target_in_january(self, sample: Sample) -> None:
        rows = ask(
            sample.owner,
            """
            select facility_id, sla_compliance_rate_pct, tickets
            from kpis.combined_kpis
            where facility_id like 'sample-%' and month = '2024-01-01' order by 1
            """,
        )
        assert rows == [("sample-harbor", 90, 5), ("sample-lakeside", 100, 2)]

    def test_tickets(self, sample: Sample) -> None:
        assert ask(
            sample.owner,
            """
            select sum(tickets), sum(resolved_tickets), sum(open_tickets),
                100 * sum(tickets_met) / sum(tickets_judged)
            from kpis.ticket_sla_compliance where facility_id like 'sample-%'
            """,
        ) == [(10, 7, 3, 90)]

    def test_mean_csat(self, sample: Sample) -> None:
        assert ask(
            sample.owner,
            """
            select month, sum(avg_score * responses) / sum(responses)
            from kpis.satisfaction_rollups
            where survey_type = 'csat' and facility_id like 'sample-%' group by 1 order by 1
            """,
        ) == [(date(2024, 1, 1), 4), (date(2024, 2, 1), Decimal("4.5"))]

    def test_values(self, sample: Sample) -> None:
        assert ask(
            sample.owner,
            "select count(*), sum(amount) from kpis.fct_leads where source_system = 'sample'",
        ) == [(12, 765000)]
        assert ask(
            sample.owner,
            "select count(*), sum(amount) from kpis.fct_opportunities"
            " where source_system = 'sample'",
        ) == [(6, 490000)]

    def test_demo_source(self, sample: Sample) -> None:
        assert ask(
            sample.owner,
            "select count(*), sum(amount), sum(expected_amount) from kpis.fct_pipeline_deals"
            " where source_system = 'demo'",
        ) == [(5, 462000, 254500)]


def test_the_twelve_kpi_tables_exist(sample: Sample) -> None:
    found = ask(
        sample.owner,
        "select tablename from pg_tables where schemaname = 'kpis' and tablename not like 'fct%'",
    )
    assert {name for (name,) in found} >= KPIS


def test_everything_was_built_and_tested(sample: Sample) -> None:
    assert not sample.report.failures
    assert not sample.report.warnings
    assert not sample.report.skipped
    assert sample.report.counts()["unit_test"] >= len(KPIS)


def test_the_database_holds_the_keys_that_contracts_name(sample: Sample) -> None:
    """No data test looks for rows that these constraints refuse."""
    manifest = json.loads((sample.target_path / "manifest.json").read_text())
    tables = [
        node
        for node in manifest["nodes"].values()
        if node["resource_type"] == "model"
        and node["schema"] == "kpis"
        and node["config"]["materialized"] != "view"
    ]
    assert len(tables) > 50
    assert {node["contract"]["enforced"] for node in tables} == {True}
    keys = ask(
        sample.owner,
        """
        select tables.relname, array_agg(columns.attname::text order by columns.attname)
        from pg_constraint as keys
        inner join pg_class as tables on keys.conrelid = tables.oid
        inner join pg_attribute as columns
            on tables.oid = columns.attrelid and columns.attnum = any(keys.conkey)
        where tables.relnamespace = 'kpis'::regnamespace
            and keys.contype = 'p' and keys.convalidated and columns.attnotnull
        group by tables.relname
        """,
    )
    assert {name: sorted(columns) for name, columns in keys} == {
        node["name"]: sorted(node["constraints"][0]["columns"]) for node in tables
    }


class TestSnapshots:
    def test_change_and_disappearance_are_tracked(
        self, sample_database: Connection, dbt: WarmDbt
    ) -> None:
        """A changed value closes one row and opens one; a vanished row is marked."""
        with psycopg.connect(**sample_database.libpq()) as session:
            session.execute(
                "update raw_sample.sample_leads set stage = 'won', won_at = now()"
                " where lead_id = 'lead-08'"
            )
            session.execute("delete from raw_sample.sample_leads where lead_id = 'lead-11'")
        dbt.run("fct_leads", "conversion_funnel", "conversion_funnel_snapshot")
        changed = ask(
            sample_database,
            """
            select stage_count, dbt_valid_to is null, dbt_is_deleted
            from snapshots.conversion_funnel_snapshot
            where rep_id = 'rep-dee' and month = '2024-01-01' and funnel_stage = 'won'
            order by dbt_valid_from
            """,
        )
        assert changed == [(0, False, "False"), (1, True, "False")]
        vanished = ask(
            sample_database,
            """
            select stage_count, dbt_valid_to is null, dbt_is_deleted
            from snapshots.conversion_funnel_snapshot
            where rep_id = 'rep-dee' and month = '2024-02-01' and funnel_stage = 'opportunity'
            order by dbt_valid_from, dbt_is_deleted
            """,
        )
        assert vanished == [(1, False, "False"), (1, True, "True")]


def test_as_of_makes_the_numbers_of_a_past_day_again(
    sample_database: Connection, dbt: WarmDbt
) -> None:
    dbt.run(
        *("+conversion_funnel", "+ticket_sla_compliance"),
        variables={"as_of": "2024-02-01T00:00:00+00:00"},
    )
    assert ask(
        sample_database,
        """
        select month, funnel_stage, sum(stage_count) from kpis.conversion_funnel
        where funnel_stage in ('lead', 'won') group by 1, 2 order by 1, 2
        """,
    ) == [(date(2024, 1, 1), "lead", 8), (date(2024, 1, 1), "won", 2)]
    # ticket-05 waits for the customer since 31 January: answered, its resolution still ahead.
    assert ask(
        sample_database,
        "select sum(tickets), sum(open_tickets) from kpis.ticket_sla_compliance",
    ) == [(7, 2)]


#: Generic tests that judge each row, or rows of one key: where there are none, none can fail.
OF_ROWS = (
    *("not_null", "unique", "unique_combination", "accepted_values", "relationships"),
    *("value_range", "percentages_in_range", "not_above"),
)


def filled(owner: Connection, dbt: WarmDbt) -> dict[str, str]:
    """Models and snapshots that have rows, and their schemas."""
    with psycopg.connect(**owner.libpq()) as session:
        return {
            node["name"]: node["schema"]
            for node in dbt.nodes().values()
            if node["resource_type"] in ("model", "snapshot")
            and session.execute(
                sql.SQL("select from {} limit 1").format(
                    sql.Identifier(node["schema"], node["name"])
                )
            ).rowcount
        }


def test_any_subset_of_the_sources_will_do(database: Connection, dbt: WarmDbt) -> None:
    """None: empty tables and green tests. One entity: its tables alone have rows."""
    dbt.run("fqn:*")
    have_rows = filled(database, dbt)
    assert 0 < len(have_rows) < 20
    assert not {"kpis", "snapshots"} & {*have_rows.values()}, have_rows
    left_out = " ".join(f"test_name:{name}" for name in OF_ROWS)
    found = dbt.test("fqn:*", exclude=f"resource_type:unit_test {left_out}")
    assert len(found) > 40
    assert set((found | dbt.test(*have_rows)).values()) <= {"pass", "warn"}

    with connect("loader") as session:
        session.execute(
            """
            insert into raw_files.tickets (project_id, ticket_id, priority, status, created_at)
            values ('p', 't1', 'high', 'open', '2024-01-01')
            """
        )
    dbt.run("stg_tickets+")
    assert set(dbt.test("stg_tickets+").values()) == {"pass"}
    assert ask(database, "select tickets, open_tickets from kpis.ticket_sla_compliance") == [(1, 1)]
    assert ask(database, "select tickets, leads from kpis.combined_kpis") == [(1, None)]
    assert ask(database, "select count(*) from kpis.conversion_funnel") == [(0,)]


def copy_with(model: str, sample: Sample, folder: Path) -> None:
    """Copies of the project what a model is made of, which dbt reads sooner than all of it."""
    manifest = json.loads((sample.target_path / "manifest.json").read_text())
    known = {**manifest["nodes"], **manifest["sources"]}
    wanted = [f"model.stageline.{model}"]
    files = {Path("dbt_project.yml"), Path("profiles.yml")}
    files |= {path.relative_to(PROJECT_ROOT) for path in PROJECT_ROOT.glob("models/**/*.md")}
    for name in wanted:
        wanted += [parent for parent in manifest["parent_map"][name] if parent not in wanted]
        files.add(Path(known[name]["original_file_path"]))
        if described := known[name].get("patch_path"):
            files.add(Path(described.partition("://")[2]))
    for file in files:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(PROJECT_ROOT / file, folder / file)
    shutil.copytree(PROJECT_ROOT / "macros", folder / "macros")


def test_a_developers_target_leaves_the_real_tables_alone(
    sample: Sample,
    sample_database: Connection,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("STAGELINE_DBT_SCHEMA", "dev_ana")
    with psycopg.connect(**sample_database.libpq()) as session:
        session.execute(
            sql.SQL("grant create on database {} to stageline_transformer").format(
                sql.Identifier(sample_database.dbname)
            )
        )
        before = session.execute("select max(updated_at) from kpis.conversion_funnel").fetchone()
    # For a target of its own dbt reads a project anew.
    copy_with("conversion_funnel", sample, tmp_path / "project")
    report = build(
        exclude="resource_type:test resource_type:unit_test",
        target="dev",
        project=tmp_path / "project",
    )
    assert len(report.nodes) > 10
    assert ask(sample_database, "select count(*) from dev_ana_kpis.conversion_funnel") == ask(
        sample_database, "select count(*) from kpis.conversion_funnel"
    )
    assert ask(sample_database, "select max(updated_at) from kpis.conversion_funnel") == [before]


#: Seed -> a row of it, what it is changed to, and a number that then does not come out.
CHANGED_ROWS = {
    "leads": ("rep-dee,lead,30000", "rep-dee,sql,30000", "2024-01-01 sql leads"),
    "tickets": ("2024-01-05T08:35:00Z", "2024-01-05T18:35:00Z", "ticket compliance %"),
    "satisfaction": ("ticket-02,csat,3", "ticket-02,csat,2", "2024-01-01 mean CSAT"),
    "applications": ("approved,2024-01-04", "withdrawn,2024-01-04", "compliant applications"),
    "opportunities": ("40000,EUR", "40001,EUR", "opportunity value"),
    "outreach": ("2024-01-29T09:15:00Z", "", "responses"),
    "invoices": ("opp-01,issued", "opp-01,paid", "paid amount"),
}


def test_changed_seed_rows_fail_a_test(
    sample: Sample, sample_database: Connection, tmp_path: Path
) -> None:
    """One changed row in each seed: the build fails, and over a number of every one of them."""
    project = tmp_path / "project"
    project.mkdir()
    for name in ("dbt_project.yml", "profiles.yml", "selectors.yml"):
        shutil.copy(PROJECT_ROOT / name, project)
    for name in ("models", "macros", "seeds", "snapshots", "tests/data"):
        shutil.copytree(PROJECT_ROOT / name, project / name)
    for seed, (row, changed, _) in CHANGED_ROWS.items():
        path = project / "seeds" / "sample" / f"sample_{seed}.csv"
        assert path.read_text().count(row) == 1, seed
        path.write_text(path.read_text().replace(row, changed))

    # Of what dbt has read of the project, the changed seeds alone are read again.
    (project / "target").mkdir()
    shutil.copy(sample.target_path / "partial_parse.msgpack", project / "target")

    # Views of the same seeds are there.
    made = " ".join(
        f"+test_sample_numbers,config.materialized:{kind}" for kind in ("seed", "table")
    )
    with pytest.raises(BuildError) as failure:
        build(f"test_sample_numbers {made}", exclude="resource_type:unit_test", project=project)

    assert [node.name for node in failure.value.report.failures] == ["test_sample_numbers"]
    compiled = project / "target/compiled/stageline/tests/data/test_sample_numbers.sql"
    wrong = {name for name, *_ in ask(sample_database, compiled.read_text())}
    assert {number for *_, number in CHANGED_ROWS.values()} <= wrong
