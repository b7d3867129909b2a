"""The quality checks: what they find, what stops a build, what is kept of it and what never is."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from click.testing import CliRunner

from jobs.data_docs import offline
from jobs.expectations import ANSWER_REFERENCES, TABLES, Freshness, Limits, RawTable, limits, rules
from jobs.quality import Report, run_checks
from loaders.entities import ENTITIES
from loaders.registry import source
from stageline.cli import main
from stageline.config import PROJECT_ROOT, settings
from stageline.database import Role, connect, connection
from stageline.errors import StagelineError
from tests.crm_loads import loose_ends

NOW = datetime.now(UTC)
HOUR = timedelta(hours=1)

in_database = pytest.mark.usefixtures("database")


@contextmanager
def session(role: Role) -> Iterator[psycopg.Connection[Any]]:
    with connect(role, autocommit=True) as opened:
        yield opened


def insert(role: Role, table: str, *rows: dict[str, Any]) -> None:
    schema, name = table.split(".")
    with session(role) as database:
        for row in rows:
            database.execute(
                psycopg.sql.SQL("insert into {} ({}) values ({})").format(
                    psycopg.sql.Identifier(schema, name),
                    psycopg.sql.SQL(", ").join(map(psycopg.sql.Identifier, row)),
                    psycopg.sql.SQL(", ").join(psycopg.sql.Placeholder() * len(row)),
                ),
                list(row.values()),
            )


def lead(number: int, **more: Any) -> dict[str, Any]:
    row = {"project_id": "p", "lead_id": f"l{number}", "stage": "lead", "created_at": NOW - HOUR}
    return {**row, **more}


def found(report: Report) -> set[tuple[str, str, str, str]]:
    return {
        (result.rule.severity, result.table.name, result.rule.kind, ", ".join(result.rule.columns))
        for result in report.results
        if not result.success
    }


def stageline(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "stageline", *arguments],
        cwd=PROJECT_ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def table(name: str) -> RawTable:
    return next(one for one in TABLES if one.name == name)


def test_rules_follow_the_entities() -> None:
    """Nothing that an entity says of its fields is left unchecked, in any table that holds it."""
    for name, entity in ENTITIES.items():
        made = rules(table(f"raw_files.{name}"), now=NOW, limits=Limits(), rows_before=None)
        by = {(rule.kind, rule.columns): rule for rule in made if rule.where is None}
        for field in entity.fields:
            column = (field.name,)
            if field.required:
                assert by["filled", column].severity == "critical"
            if field.choices:
                assert by["choices", column].choices == field.choices
            if field.least is not None or field.most is not None:
                rule = by["between", column]
                assert (rule.least, rule.most) == (field.least, field.most)
            if field.type == "timestamp":
                assert ("between", column) in by
        assert by["unique", ("project_id", *entity.key)].severity == "critical"


def test_limits_of_the_project_can_be_read() -> None:
    assert limits().row_count.drop_pct == 50


@pytest.mark.parametrize("text", [{"freshness": {"day": 3}}, {"row_count": {"drop_pct": 0}}])
def test_a_misspelt_limit_is_refused(text: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"freshness\.day|row_count\.drop_pct"):
        Limits.model_validate(text)


def test_a_page_made_offline_loads_nothing() -> None:
    page = (
        '<html><head><link rel="stylesheet" href="https://cdn.example/a.css"/>'
        '<script src="https://cdn.example/a.js"></script>'
        "<style>a { background: url('https://cdn.example/a.png') }</style></head>"
        '<body><img\n class="x" src="https://cdn.example/pixel.png?id=1"/>'
        '<img src="static/own.png"><footer>news</footer><p>kept</p></body></html>'
    )
    made = offline(page, "../static/stageline.css")
    assert "cdn.example" not in made
    assert "<p>kept</p>" in made and "static/own.png" in made
    assert '<link rel="stylesheet" href="../static/stageline.css"></head>' in made


@in_database
def test_good_rows_pass_and_no_value_leaves_the_database() -> None:
    insert("loader", "raw_files.leads", *(lead(n, rep_id="Jane Secret") for n in range(3)))
    event = {"entity_type": "deal", "entity_id": "d1", "stage_id": "s1", "entered_at": NOW - HOUR}
    insert("loader", "raw_files.stage_events", {"project_id": "p", **event})
    # A row that fails, so that there is a value that could leak.
    insert("loader", "raw_files.leads", lead(9, stage="Jane's own stage"))

    report = run_checks()

    assert found(report) == {("critical", "raw_files.leads", "choices", "stage")}
    with session("jobs") as ops:
        assert ops.execute(
            "select success, critical_failures from ops.quality_runs where run_id = %s",
            (report.run_id,),
        ).fetchone() == (False, 1)
        stored = ops.execute(
            "select severity, observed, details from ops.quality_results"
            " where run_id = %s and not success",
            (report.run_id,),
        ).fetchall()
    assert stored == [
        ("critical", {"rows": 4, "failing": 1}, "stage is one of lead, sql, opportunity, won, lost")
    ]
    password = connection("transformer").password
    written = [p for p in settings().output.rglob("*") if p.is_file()]
    written += [p for p in (settings().home / "gx").rglob("*") if p.is_file()]
    texts = {p: p.read_bytes() for p in written}
    assert settings().output / "data_docs" / "index.html" in texts
    for path, text in texts.items():
        assert b"Jane" not in text, path
        assert password.encode() not in text, path
        if path.suffix == ".html":
            assert b'src="http' not in text and b'rel="stylesheet" href="http' not in text, path
    index = (settings().output / "data_docs" / "index.html").read_text()
    page = settings().output / "data_docs" / index.split('<a href="')[1].split('"')[0]
    assert page.exists() and "stage" in page.read_text()
    assert "raw_files.tickets" in index and "empty" in index


@in_database
def test_a_broken_row_stops_the_build_before_anything_is_touched() -> None:
    insert("loader", "raw_files.leads", lead(1), lead(2, win_probability=7), lead(3))
    with session("transformer") as database:
        database.execute("create table kpis.conversion_funnel as select 42 as stage_count")
    state = "select 'kpis.conversion_funnel'::regclass::oid, xmin::text, stage_count"
    with session("transformer") as database:
        before = database.execute(state + " from kpis.conversion_funnel").fetchall()

    done = stageline("build")

    assert done.returncode == 1
    (line,) = [line for line in done.stderr.splitlines() if not line.startswith("{")]
    assert line.startswith(
        "error: Quality check failed, nothing was built: raw_files.leads: not so for 1 of 3 rows:"
        ' "win_probability is between 0 and 1".'
    )
    assert str(settings().output / "data_docs" / "index.html") in line
    with session("transformer") as database:
        assert database.execute(state + " from kpis.conversion_funnel").fetchall() == before
        assert database.execute("select to_regclass('staging.stg_leads')").fetchone() == (None,)
    with session("jobs") as ops:
        assert ops.execute("select count(*) from ops.builds").fetchone() == (0,)

    told = CliRunner().invoke(main, ["check", "--suite", "leads"])
    assert told.exit_code == 1
    assert "raw_files.leads" in told.stdout
    assert 'critical: raw_files.leads: not so for 1 of 3 rows: "win_probability' in told.stdout
    assert "raw_files.tickets" not in told.stdout


@in_database
def test_every_kind_of_rule_finds_its_row() -> None:
    insert(
        "loader",
        "raw_files.leads",
        lead(1, sql_at=NOW - 2 * HOUR, amount=-1),
        lead(2, created_at=datetime(1948, 1, 1, tzinfo=UTC)),
        lead(3, won_at=NOW + timedelta(days=30)),
    )
    opportunity = {
        "project_id": "p",
        "opportunity_id": "o1",
        "lead_id": "gone",
        "status": "open",
        "created_at": NOW,
        "expected_close_date": (NOW + timedelta(days=300)).date(),
    }
    answer = {"project_id": "p", "survey_type": "csat", "responded_at": NOW}
    insert("loader", "raw_files.opportunities", opportunity)
    # The lead of another project is no answer to the reference.
    insert("loader", "raw_files.leads", lead(4, project_id="q", lead_id="gone"))
    insert(
        "loader",
        "raw_files.satisfaction",
        {**answer, "response_id": "r1", "score": 7},
        {**answer, "response_id": "r2", "score": 5},
        {**answer, "response_id": "r3", "score": 10, "survey_type": "nps"},
    )

    report = run_checks()

    assert found(report) == {
        ("warning", "raw_files.leads", "order", "sql_at, created_at"),
        ("warning", "raw_files.leads", "between", "amount"),
        ("warning", "raw_files.leads", "between", "created_at"),
        ("warning", "raw_files.leads", "between", "won_at"),
        ("warning", "raw_files.opportunities", "reference", "lead_id"),
        ("critical", "raw_files.satisfaction", "between", "score"),
    }
    (score,) = report.failures("critical")
    assert score.failing == 1
    with pytest.raises(StagelineError, match=r"raw_files\.satisfaction: not so for 1"):
        report.stop_on_critical()


@in_database
def test_what_reps_items_lists_and_sales_refer_to_and_when_reps_are_in_two_teams() -> None:
    def rep(rep_id: str, begins: int, ends: int | None, **values: Any) -> dict[str, Any]:
        day = NOW.date().replace(day=1)
        return {
            "project_id": "p",
            "rep_id": rep_id,
            "active_from": day + timedelta(days=begins),
            "active_to": None if ends is None else day + timedelta(days=ends),
            **values,
        }

    insert(
        "loader",
        "raw_files.reps",
        rep("in-turn", 0, 9),
        rep("in-turn", 10, None),
        rep("twice", 0, 10),
        rep("twice", 10, 12),
        rep("twice", 20, None),
        rep("still", 0, None),
        rep("still", 5, 7, project_id="q"),
        rep("still", 30, 40),
    )
    item = {"project_id": "p", "stage": "SOLD", "created_at": NOW}
    insert(
        "loader",
        "raw_files.pipeline_items",
        {**item, "item_id": "i1", "sublist_id": "nowhere"},
        {**item, "item_id": "i2", "agreement_at": NOW, "partner_list_sent_at": NOW - HOUR},
        {**item, "item_id": "i3", "closed_at": NOW - HOUR},
        {**item, "item_id": "i4", "partner_list_due_at": NOW + timedelta(days=30)},
    )
    insert(
        "loader",
        "raw_files.sublists",
        {"project_id": "p", "sublist_id": "s1", "item_id": "nowhere", "created_at": NOW},
    )
    sale = {"project_id": "p", "amount": -1, "sold_at": NOW}
    insert(
        "loader",
        "raw_files.sales",
        {**sale, "sale_id": "1", "item_id": "nowhere"},
        {**sale, "sale_id": "2", "item_id": "i1", "amount": 1},
    )

    report = run_checks()

    assert found(report) == {
        ("warning", "raw_files.reps", "apart", "active_from, active_to"),
        ("warning", "raw_files.pipeline_items", "reference", "sublist_id"),
        ("warning", "raw_files.pipeline_items", "order", "partner_list_sent_at, agreement_at"),
        ("warning", "raw_files.pipeline_items", "order", "closed_at, created_at"),
        ("warning", "raw_files.sublists", "reference", "item_id"),
        ("warning", "raw_files.sales", "reference", "item_id"),
        ("warning", "raw_files.sales", "between", "amount"),
    }
    (apart,) = [result for result in report.results if result.rule.kind == "apart"]
    assert apart.failing == 2


def minimal(crm: str, name: str, project: str, **values: Any) -> dict[str, Any]:
    """A row of a CRM's table with what it cannot be without, and these values."""
    declared = next((each for each in source(crm).tables if each.name == name), None)
    key = declared.key if declared else ("deal_id",)
    types = {column.name: column.type for column in declared.columns} if declared else {}
    keys = {each: {"timestamp": NOW, "int32": 1}.get(types.get(each, ""), "mine") for each in key}
    return {"project_id": project, "fetched_at": NOW, **keys, **values}


@in_database
def test_what_tables_of_a_crm_refer_to_is_looked_for_in_the_same_project() -> None:
    children: dict[tuple[str, str], dict[str, str]] = {}
    for crm, references in ANSWER_REFERENCES.items():
        for (name, column), _ in references:
            children.setdefault((crm, name), {})[column] = "nowhere"
    for (crm, name), values in children.items():
        insert("loader", f"raw_{crm}.{name}", minimal(crm, name, "p", **values))
    parents = {
        (crm, *targets[-1])
        for crm, references in ANSWER_REFERENCES.items()
        for _, targets in references
    }
    for crm, name, column in parents:
        insert("loader", f"raw_{crm}.{name}", minimal(crm, name, "q", **{column: "nowhere"}))

    assert found(run_checks()) == {
        ("warning", f"raw_{crm}.{name}", "reference", column)
        for (crm, name), values in children.items()
        for column in values
    }

    for crm, name, column in parents:
        insert("loader", f"raw_{crm}.{name}", minimal(crm, name, "p", **{column: "nowhere"}))
    assert [end for crm in ANSWER_REFERENCES for end in loose_ends(crm, "p")] == []


@in_database
def test_the_sample_is_held_to_more_but_only_while_it_counts() -> None:
    with session("transformer") as database:
        database.execute(
            "create table raw_sample.sample_leads as table raw_files.leads with no data"
        )
    fixed = datetime(2024, 1, 5, tzinfo=UTC)
    good = {"stage": "lead", "created_at": fixed}
    insert(
        "transformer",
        "raw_sample.sample_leads",
        {**good, "lead_id": "1"},
        {**good, "lead_id": "1"},
        {**good, "lead_id": None},
        {**good, "lead_id": "2", "amount": -5},
    )

    report = run_checks("leads")
    assert (table("raw_sample.sample_leads"), "inactive") in report.skipped
    assert report.results == []

    insert("owner", "settings.projects", {"source_system": "sample", "project_id": "sample"})
    report = run_checks("leads")
    assert found(report) == {
        ("critical", "raw_sample.sample_leads", "unique", "lead_id"),
        ("critical", "raw_sample.sample_leads", "filled", "lead_id"),
        ("critical", "raw_sample.sample_leads", "between", "amount"),
    }
    assert (table("raw_files.leads"), "empty") in report.skipped


@in_database
def test_old_data_is_told_and_can_be_made_to_stop() -> None:
    insert("loader", "raw_files.leads", lead(1, created_at=NOW - timedelta(days=10)))
    stale = ("raw_files.leads", "newest", "created_at")

    assert found(run_checks("leads")) == {("warning", *stale)}
    strict = Limits(freshness=Freshness(severity="critical"))
    assert found(run_checks("leads", limits=strict)) == {("critical", *stale)}
    patient = Limits(freshness=Freshness(days={"leads": 30}))
    assert found(run_checks("leads", limits=patient)) == set()
    off = Limits(freshness=Freshness(default_days=None))
    assert found(run_checks("leads", limits=off)) == set()


@in_database
def test_rows_are_held_against_an_earlier_day() -> None:
    rows_rule = ("raw_files.leads", "rows", "")
    insert("loader", "raw_files.leads", *(lead(n) for n in range(10)))
    run_checks("leads")
    with session("loader") as database:
        database.execute("delete from raw_files.leads where lead_id > 'l3'")
    assert found(run_checks("leads")) == set(), "a check of the same day is not the day before"

    with session("jobs") as ops:
        ops.execute("update ops.quality_results set checked_at = checked_at - interval '1 day'")
        ops.execute("delete from ops.quality_results where observed ->> 'rows' = '4'")
    assert found(run_checks("leads")) == {("warning", *rows_rule)}

    with session("loader") as database:
        database.execute("delete from raw_files.leads")
    report = run_checks("leads")
    assert found(report) == {("critical", *rows_rule), ("warning", *rows_rule)}
    with pytest.raises(StagelineError, match=r"there are rows \(10 at the last check"):
        report.stop_on_critical()


def test_an_unknown_suite_is_told_with_those_there_are() -> None:
    with pytest.raises(StagelineError, match=r"no entity 'lead'\. There are: leads"):
        run_checks("lead")
