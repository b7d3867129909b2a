"""Loading a user's file: into a real database, through dlt, as the command does it."""

import csv
import io
import json
import re
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result
from psycopg import sql

from loaders.entities import ENTITIES
from loaders.files import load_file, rejects
from stageline import config
from stageline.cli import main
from stageline.database import Connection, connect
from stageline.errors import StagelineError

pytestmark = pytest.mark.usefixtures("database")

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
START = datetime(2024, 1, 1, tzinfo=UTC)


def stageline(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Runs the command as a child process."""
    return subprocess.run(
        [sys.executable, "-m", "stageline", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def command(*arguments: str | Path) -> Result:
    """Runs the command here, where what it needs is imported; no mistake is a stack trace."""
    result = CliRunner().invoke(main, [*map(str, arguments)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def table(entity: str, *columns: str, project: str = "default") -> list[tuple[Any, ...]]:
    """Columns of what is loaded, in the order of the key."""
    query = sql.SQL("select {} from {} where project_id = %s order by {}").format(
        sql.SQL(", ").join(map(sql.Identifier, columns)),
        sql.Identifier("raw_files", entity),
        sql.SQL(", ").join(map(sql.Identifier, ENTITIES[entity].key)),
    )
    with connect("owner") as session:
        return session.execute(query, [project]).fetchall()


def versions(entity: str) -> list[tuple[str]]:
    """The transaction that last touched each row."""
    with connect("owner") as session:
        return session.execute(
            sql.SQL("select xmin::text from {} order by project_id, {}").format(
                sql.Identifier("raw_files", entity),
                sql.SQL(", ").join(map(sql.Identifier, ENTITIES[entity].key)),
            )
        ).fetchall()


def leads(path: Path, count: int, **changed: str) -> Path:
    """A CSV of leads; ``changed`` puts another line where a lead of that number would stand."""
    lines = ["lead_id,facility_id,rep_id,stage,amount,created_at"]
    for number in range(count):
        at = START + timedelta(minutes=number)
        lines.append(
            changed.get(
                f"lead_{number}",
                f"lead-{number:06},fac-{number % 7},rep-{number % 31},won,{number}.10,{at:%FT%TZ}",
            )
        )
    path.write_text("\n".join(lines) + "\n")
    return path


def test_every_entity_has_its_table_and_takes_a_row(tmp_path: Path) -> None:
    sample = {
        "text": "x1",
        "numeric": "0.5",
        "integer": "3",
        "boolean": "yes",
        "date": "2024-01-31",
    }
    for entity in ENTITIES.values():
        path = tmp_path / f"{entity.name}.csv"
        row = {
            field.name: field.choices[0]
            if field.choices
            else sample.get(field.type, "2024-01-31T09:30:00+02:00")
            for field in entity.fields
        }
        path.write_text(f"{','.join(row)}\n{','.join(row.values())}\n")
        done = load_file(path, entity.name)
        assert (done.read, done.new, done.rejected) == (1, 1, 0), entity.name
        assert done.unread == []
        landed = table(entity.name, "source_system", "source_file", "source_line", *row)
        assert landed[0][:3] == ("file", path.name, 2)
        assert None not in landed[0]


def test_a_large_file_with_a_few_broken_lines(tmp_path: Path) -> None:
    path = leads(
        tmp_path / "leads.csv",
        100_000,
        lead_10="lead-000010,fac-1,rep-1,won",
        lead_50000='lead-050000,"fac-1,rep-1,won,1.10,2024-01-01T00:00:00Z',
        lead_70000="lead-070000,fac-1,rep-1,wonn,1.10,2024-01-01T00:00:00Z",
        lead_70001="lead-070001,fac-1,rep-1,won,1.1.0,2024-01-01T00:00:00Z",
        lead_99999="lead-000000,fac-1,rep-1,lost,1,2024-01-01T00:00:00Z",
    )
    result = stageline("load", "file", path, "--as", "leads")
    assert result.returncode == 0, result.stderr
    assert "leads.csv as leads, project default: 100000 rows read" in result.stdout
    counts = dict(re.findall(r"^  (\w+) +(\d+)$", result.stdout, re.MULTILINE))
    assert counts == {
        "new": "99995",
        "changed": "0",
        "unchanged": "0",
        "duplicate": "0",
        "rejected": "5",
    }
    assert "line 50002: a quote is opened on this line" in result.stdout
    assert (
        "line 70002: stage: 'wonn' is not one of lead, sql, opportunity, won, lost" in result.stdout
    )
    assert "stageline load rejects --as leads" in result.stdout
    assert "stageline build" in result.stdout
    for line in result.stderr.splitlines():  # progress: JSON lines, and no row in them
        assert "rep-1" not in json.dumps(json.loads(line))
    landed = table("leads", "lead_id", "amount", "created_at", "source_line")
    expected = [
        (f"lead-{n:06}", Decimal(f"{n}.10"), START + timedelta(minutes=n), n + 2)
        for n in range(100_000)
        if n not in {10, 50_000, 70_000, 70_001, 99_999}
    ]
    assert landed == expected

    shown = command("load", "rejects", "--format", "csv")
    found = list(csv.DictReader(io.StringIO(shown.stdout)))
    assert [(row["line"], row["field"]) for row in found] == [
        ("12", ""),
        ("50002", ""),
        ("70002", "stage"),
        ("70003", "amount"),
        ("100001", "lead_id"),
    ]
    assert found[0]["row"] == "lead-000010,fac-1,rep-1,won"
    assert json.loads(found[3]["row"])["amount"] == "1.1.0"
    assert "line 2 has the same lead_id" in found[4]["reason"]
    assert "5 rejected rows" in command("load", "rejects", "--as", "leads").stdout
    assert "No rejected rows" in command("load", "rejects", "--as", "tickets").stdout


def test_the_same_file_again_changes_nothing(tmp_path: Path) -> None:
    path = leads(tmp_path / "leads.csv", 300, lead_5="lead-000005,f,r,won,x,2024-01-01T00:00Z")
    first = load_file(path, "leads")
    rows, kept = versions("leads"), list(rejects(None, None))
    again = load_file(path, "leads")
    assert (first.new, first.changed, first.unchanged, first.rejected) == (299, 0, 0, 1)
    assert (again.new, again.changed, again.unchanged, again.rejected) == (0, 0, 299, 1)
    assert versions("leads") == rows
    assert list(rejects(None, None)) == kept
    # the same rows in another file and order are the same rows
    lines = path.read_text().splitlines()
    moved = tmp_path / "moved.csv"
    moved.write_text("\n".join([lines[0], *reversed(lines[1:])]))
    assert load_file(moved, "leads").unchanged == 299
    assert versions("leads") == rows


def test_a_corrected_file_updates_its_rows_and_settles_its_rejects(tmp_path: Path) -> None:
    path = leads(tmp_path / "leads.csv", 100, lead_5="lead-000005,f,r,won,x,2024-01-01T00:00Z")
    load_file(path, "leads")
    before = versions("leads")
    leads(path, 100, lead_7="lead-000007,f,r,lost,,2024-01-01T00:00Z")
    done = load_file(path, "leads")
    assert (done.new, done.changed, done.unchanged, done.rejected) == (1, 1, 98, 0)
    assert list(rejects(None, None)) == []
    landed = {row[0]: row[1:] for row in table("leads", "lead_id", "stage", "amount")}
    assert landed["lead-000007"] == ("lost", None)  # a value that is gone is gone
    assert landed["lead-000005"] == ("won", Decimal("5.10"))
    assert len(set(versions("leads")) - set(before)) == 1


def test_a_better_mapping_settles_rejects_of_the_same_file(tmp_path: Path) -> None:
    path = tmp_path / "tickets.csv"
    path.write_text(
        "ticket_id,priority,status,created_at\n"
        "t1,P1,open,2024-01-01T00:00Z\n"
        "t2,high,open,2024-01-01T00:00Z\n"
        "t3,P9,open,2024-01-01T00:00Z\n"
    )
    assert load_file(path, "tickets").rejected == 2
    mapping = tmp_path / "tickets.yml"
    mapping.write_text("fields: {priority: {column: priority, values: {p1: critical}}}\n")
    done = load_file(path, "tickets", mapping_path=mapping)
    assert (done.new, done.unchanged, done.rejected) == (1, 1, 1)
    assert [(row["source_line"], row["field"]) for row in rejects(None, None)] == [(4, "priority")]


def test_repeated_rows_within_a_file(tmp_path: Path) -> None:
    path = tmp_path / "events.csv"
    path.write_text(
        "entity_id,stage_id,entered_at,sequence\n"
        "d1,new,2024-01-01T10:00:00Z,1\n"
        "d1,new,2024-01-01T12:00:00+02:00,1\n"  # the same instant, written otherwise
        "d1,new,2024-01-01T10:00:00Z,2\n"
        "d1,new,2024-01-01T10:00:01Z,2\n"
    )
    done = load_file(path, "stage_events")
    assert (done.read, done.new, done.duplicate, done.rejected) == (4, 2, 1, 1)
    assert done.first_rejects[0].line == 4
    assert "line 2 has the same entity_type + entity_id" in done.first_rejects[0].reason
    assert table("stage_events", "entity_type", "sequence") == [("deal", 1), ("deal", 2)]


def test_a_score_has_to_suit_its_survey(tmp_path: Path) -> None:
    path = tmp_path / "answers.csv"
    path.write_text(
        "response_id,survey_type,score,responded_at\n"
        "r1,csat,5,2024-01-01T00:00Z\n"
        "r2,csat,9,2024-01-01T00:00Z\n"
        "r3,nps,9,2024-01-01T00:00Z\n"
        "r4,csat,0,2024-01-01T00:00Z\n"
        "r5,,0,2024-01-01T00:00Z\n"
    )
    done = load_file(path, "satisfaction")
    assert [(reject.line, reject.field) for reject in done.first_rejects] == [
        (3, "score"),
        (5, "score"),
        (6, "survey_type"),
    ]
    assert done.first_rejects[0].reason == "9 is no CSAT score (1 to 5)"


def test_the_examples_of_sales_activity_fit_and_refer_to_each_other() -> None:
    files = {
        "reps": "reps.csv",
        "activities": "calls.csv",
        "pipeline_items": "pipeline_items.csv",
        "sublists": "sublists.csv",
        "sales": "sales.csv",
    }
    rows = {}
    for entity, name in files.items():
        done = load_file(EXAMPLES / name, entity, dry_run=True)
        assert (done.rejected, done.unread) == (0, []), entity
        rows[entity] = list(csv.DictReader((EXAMPLES / name).read_text().splitlines()))
        assert done.new == len(rows[entity]) > 0
    ids = {
        field: {row[field] for row in rows[entity]}
        for entity, field in (
            ("reps", "rep_id"),
            ("pipeline_items", "item_id"),
            ("sublists", "sublist_id"),
        )
    }
    for entity in rows:
        for row in rows[entity]:
            for field in ids.keys() & row.keys():
                assert row[field] in ids[field] | {""}, (entity, row)


BAD_SALES_ROWS = {
    "reps": (
        "rep_id,name,team_id,active_from,active_to",
        [
            ("r1,Ada,north,2026-01-01,2026-03-31", ""),
            ("r1,Ada,south,2026-04-01,", ""),  # another team: another row
            ("r2,Bo,north,2026-04-01,2026-04-01", ""),
            ("r3,Cy,north,2026-04-02,2026-04-01", "2026-04-01 is before active_from, 2026-04-02"),
            ("r4,Di,north,,2026-04-01", "is empty, and must not be"),
            ("r1,Ada,east,2026-01-01,", "line 2 has the same rep_id + active_from"),
        ],
    ),
    "pipeline_items": (
        "item_id,stage,created_at,closed_at,partner_list_sent_at,partner_list_size",
        [
            ("i1,SOLD,2026-01-02T00:00Z,2026-01-01T00:00Z,,20", ""),  # odd, kept and flagged later
            ("i2,Something new,2026-01-02T00:00Z,,2026-01-03T09:00+02:00,0", ""),
            ("i3,,2026-01-02T00:00Z,,,", "is empty, and must not be"),
            ("i4,SOLD,,,,", "is empty, and must not be"),
            ("i5,SOLD,2026-01-02T00:00Z,,,-1", "'-1' is below 0"),
            ("i6,SOLD,2026-01-02T00:00Z,,,2.5", "'2.5' is not a whole number"),
            ("i7,SOLD,2026-01-02 10:00,,,", "has no time zone"),
        ],
    ),
    "sublists": (
        "sublist_id,item_id,created_at",
        [
            ("s1,i1,2026-01-02T00:00Z", ""),
            ("s2,,2026-01-02T00:00Z", "is empty, and must not be"),
        ],
    ),
    "sales": (
        "sale_id,item_id,rep_id,sold_at,amount,currency",
        [
            ("1,i1,r1,2026-01-02T00:00Z,1200.50,EUR", ""),
            ("2,,,2026-01-02T00:00Z,-5,", ""),  # given back
            ("3,i1,r1,2026-01-02T00:00Z,,EUR", "is empty, and must not be"),
            ("4,i1,r1,,10,EUR", "is empty, and must not be"),
            ("5,i1,r1,2026-01-02T00:00Z,ten,EUR", "'ten'"),
        ],
    ),
    "activities": (
        "activity_id,activity_type,rep_id,item_id,created_at,scheduled_at,completed_at,updated_at",
        [
            ("a1,call,r1,i1,2026-01-05T00:00Z,,2026-01-02T00:00Z,", ""),  # written down later
            ("a2,Call,,,,2026-01-02T00:00Z,,2026-01-03T00:00Z", ""),
            ("a3,coffee,r1,,,,,", "'coffee' is not one of call, meeting, email"),
            ("a4,call,r1,,soon,,,", "'soon'"),
        ],
    ),
}


@pytest.mark.parametrize("entity", BAD_SALES_ROWS)
def test_what_sales_reports_are_made_from_is_taken_or_kept_with_the_reason(
    entity: str, tmp_path: Path
) -> None:
    header, cases = BAD_SALES_ROWS[entity]
    path = tmp_path / f"{entity}.csv"
    path.write_text("\n".join([header, *(row for row, _ in cases)]) + "\n")
    done = load_file(path, entity)
    reasons = {reject.line: reject.reason for reject in done.first_rejects}
    expected = {line: said for line, (_, said) in enumerate(cases, 2) if said}
    assert reasons.keys() == expected.keys(), reasons
    for line, said in expected.items():
        assert said in reasons[line]
    assert len(table(entity, "source_line")) == done.new == len(cases) - len(expected)
    assert (done.read, load_file(path, entity).unchanged) == (len(cases), done.new)


def test_projects_are_kept_apart(tmp_path: Path) -> None:
    path = leads(tmp_path / "leads.csv", 10)
    assert load_file(path, "leads", project_id="north").new == 10
    assert load_file(path, "leads", project_id="south").new == 10
    assert len(table("leads", "lead_id", project="north")) == 10


def test_a_project_that_the_settings_do_not_name_is_said_to_count_in_utc(tmp_path: Path) -> None:
    path = leads(tmp_path / "leads.csv", 2)
    words = ("load", "file", path, "--as", "leads", "--project")
    assert "The settings" not in command(*words, "shop-1", "--dry-run").stdout
    said = command(*words, "shop-1").stdout
    assert "The settings do not name project shop-1: its days are those of UTC" in said
    assert "`stageline projects add file shop-1 --timezone" in said
    assert command("projects", "add", "file", "shop-1").exit_code == 0
    assert "The settings" not in command(*words, "shop-1").stdout

    said = command(*words, "an id that no command takes").stdout
    assert "project an id that no command takes: its days are those of UTC" in said
    assert "projects add" not in said


def test_a_log_of_events_with_a_mapping_of_a_few_lines(tmp_path: Path) -> None:
    mapping = EXAMPLES / "receipt_events.yml"
    path = tmp_path / "receipt_events.csv"
    lines = ["entity_id,stage,at,seq"]
    for number in range(600):
        at = START + timedelta(seconds=977 * number, milliseconds=number % 1000)
        stage = f"T{number % 6:02} Step, with a comma"
        lines.append(f'case-{10000 + number // 6},"{stage}",{at.isoformat()},{number}')
    path.write_text("\n".join(lines))
    result = command("load", "file", path, "--as", "stage_events", "--mapping", mapping)
    assert result.exit_code == 0, result.stderr
    landed = table("stage_events", "entity_id", "stage_id", "entered_at", "sequence")
    assert len(landed) == 600
    assert len({row[0] for row in landed}) == 100
    assert sorted(landed, key=lambda row: row[3])[-1] == (
        "case-10099",
        "T05 Step, with a comma",
        START + timedelta(seconds=977 * 599, milliseconds=599),
        599,
    )


def test_the_mapping_for_a_spreadsheet_in_the_examples(tmp_path: Path) -> None:
    path = tmp_path / "deals.csv"
    path.write_bytes(
        "Deal ID;Owner;Deal name;Deal stage;Amount;Probability, %;"
        "Create date;Close date;Expected\r\n"
        "17;Ada;New roof;Closed Won;1\u00a0234,50;100;01.07.2024 12:00;-;31.07.2024\r\n"
        "18;Ada;Old roof;Proposal;n/a;12,5;31.03.2024 03:30;;\r\n"
        "19;Bo;Shed;On hold;5;50;01.07.2024 12:00;;\r\n".encode("utf-8-sig")
    )
    done = load_file(path, "opportunities", mapping_path=EXAMPLES / "deals.yml")
    assert [(reject.line, reject.field) for reject in done.first_rejects] == [
        (3, "created_at"),
        (4, "status"),
    ]
    columns = ["opportunity_id", "rep_id", "status", "stage", "amount", "currency"]
    columns += ["win_probability", "created_at", "closed_at", "expected_close_date"]
    assert table("opportunities", *columns) == [
        (
            "17",
            "Ada",
            "won",
            "Closed Won",
            Decimal("1234.5"),
            "UAH",
            Decimal(1),
            datetime(2024, 7, 1, 9, tzinfo=UTC),
            None,
            date(2024, 7, 31),
        )
    ]


def test_parquet_and_json_lines_land_like_csv(tmp_path: Path) -> None:
    rows = [
        {"id": "d1", "amount": Decimal("0.10"), "at": datetime(2024, 7, 1, 12), "p": 30.0},  # noqa: DTZ001
        {"id": "d2", "amount": None, "at": datetime(2024, 3, 31, 3, 30), "p": 0.1 + 0.2},  # noqa: DTZ001
        {"id": "d3", "amount": Decimal(2), "at": datetime(1, 1, 1), "p": 1.0},  # noqa: DTZ001
    ]
    mapping = tmp_path / "deals.yml"
    mapping.write_text(
        "time_zone: Europe/Kyiv\n"
        "fields:\n"
        "  opportunity_id: id\n"
        "  created_at: at\n"
        "  win_probability: {column: p, scale: 0.01, round: 4}\n"
        "constants: {status: open}\n"
    )
    parquet, lines = tmp_path / "deals.parquet", tmp_path / "deals.jsonl"
    pq.write_table(pa.Table.from_pylist(rows), parquet)
    lines.write_text("\n".join(json.dumps(row, default=str) for row in rows))
    expected = [("d1", Decimal("0.1"), datetime(2024, 7, 1, 9, tzinfo=UTC), Decimal("0.3"))]
    for path in (parquet, lines):
        done = load_file(path, "opportunities", mapping_path=mapping, project_id=path.suffix)
        assert (done.new, done.rejected) == (1, 2)
        assert "did not exist in Europe/Kyiv" in done.first_rejects[0].reason
        assert "outside the years" in done.first_rejects[1].reason
        columns = ("opportunity_id", "amount", "created_at", "win_probability")
        assert table("opportunities", *columns, project=path.suffix) == expected


def test_numbers_land_exactly(tmp_path: Path) -> None:
    amounts = [
        "0",
        "0.000000001",
        "-0.000000001",
        "0.1",
        "10000",
        "10000.0001",
        "123456789.123456789",
        "99999999999999999999999999999.999999999",
        "-99999999999999999999999999999.999999999",
        "1e28",
    ]
    path = tmp_path / "invoices.csv"
    lines = [f"i{n},paid,{amount},2024-01-01T00:00Z" for n, amount in enumerate(amounts)]
    path.write_text("\n".join(["invoice_id,status,amount,issued_at", *lines]))
    assert load_file(path, "invoices").rejected == 0
    assert [row[0] for row in table("invoices", "amount")] == [Decimal(a) for a in amounts]


def test_a_dry_run_shows_everything_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = leads(tmp_path / "leads.csv", 20, lead_3="lead-000003,f,r,maybe,1,2024-01-01T00:00Z")
    monkeypatch.setenv("STAGELINE_DATABASE_URL", "postgresql://nobody@127.0.0.1:1/none")
    config.settings.cache_clear()
    result = command("load", "file", path, "--as", "leads", "--dry-run")
    assert result.exit_code == 0, result.stderr
    for said in (
        "column facility_id",
        "Fields left empty: currency, win_probability",
        "line 2: lead_id=lead-000000, facility_id=fac-0, rep_id=rep-0, stage=won, amount=0.1,",
        "created_at=2024-01-01T00:00:00Z",
        "line 5: stage: 'maybe' is not one of",
        "Nothing was loaded.",
    ):
        assert said in result.stdout
    monkeypatch.delenv("STAGELINE_DATABASE_URL")
    config.settings.cache_clear()
    assert table("leads", "lead_id") == []
    with connect("owner") as session:
        assert session.execute("select count(*) from ops.loads").fetchone() == (0,)


def test_too_many_rejects_load_nothing(tmp_path: Path) -> None:
    path = leads(tmp_path / "leads.csv", 20, lead_3="x", lead_4="y")
    with pytest.raises(StagelineError, match="2 of 20 rows do not fit, more than the 1 allowed"):
        load_file(path, "leads", max_rejects=1)
    assert table("leads", "lead_id") == []
    assert load_file(path, "leads", max_rejects=2).new == 18


def test_a_file_without_a_good_row_is_an_error_that_keeps_its_rejects(tmp_path: Path) -> None:
    path = leads(tmp_path / "leads.csv", 2, lead_0="x", lead_1="y")
    result = command("load", "file", path, "--as", "leads")
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1].startswith("error: No row of ")
    assert len(list(rejects(None, "leads"))) == 2


def test_a_header_without_rows_loads_nothing_in_peace(tmp_path: Path) -> None:
    done = load_file(leads(tmp_path / "leads.csv", 0), "leads")
    assert (done.read, done.new, done.rejected) == (0, 0, 0)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["none.csv", "--as", "leads"], 1, "error: none.csv cannot be read: No such file"),
        (["none.csv"], 2, "Missing option '--as'"),
    ],
)
def test_mistakes_are_one_line(arguments: list[str], code: int, said: str) -> None:
    result = command("load", "file", *arguments)
    assert result.exit_code == code
    assert said in result.stderr


def test_an_unknown_entity_is_named_with_those_that_are_known(tmp_path: Path) -> None:
    with pytest.raises(StagelineError, match=r"no entity 'leeds'\. There are: leads, "):
        load_file(tmp_path / "none.csv", "leeds")


def test_every_load_stands_in_the_book(tmp_path: Path) -> None:
    path = leads(
        tmp_path / "leads.csv", 9, lead_3="x", lead_8="lead-000000,,,won,0,2024-01-01T00:00Z"
    )
    load_file(path, "leads")
    load_file(path, "leads")
    with connect("owner") as session:
        book = session.execute(
            """
            select source, entity, project_id, file_name, status, rows_read, rows_loaded,
                rows_unchanged, rows_duplicate, rows_rejected, length(file_sha256),
                finished_at > started_at
            from ops.loads order by started_at
            """
        ).fetchall()
    common = ("file", "leads", "default", "leads.csv", "success", 9)
    assert book == [(*common, 7, 0, 0, 2, 64, True), (*common, 0, 7, 0, 2, 64, True)]


def test_a_failed_load_says_so_and_keeps_rows_out_of_words(tmp_path: Path) -> None:
    path = leads(tmp_path / "leads.csv", 9)
    with connect("owner") as session:
        session.execute(
            "alter table raw_files.leads add constraint none_of_those check (rep_id <> 'rep-3')"
        )
    with pytest.raises(StagelineError, match="failed and changed nothing") as raised:
        load_file(path, "leads")
    assert "lead-000003" not in str(raised.value)
    assert table("leads", "lead_id") == []
    with connect("owner") as session:
        status, error = session.execute("select status, error from ops.loads").fetchone() or ()
        assert status == "failed"
        assert "lead-000003" not in error
        session.execute("alter table raw_files.leads drop constraint none_of_those")
    assert load_file(path, "leads").new == 9  # what was left behind does not stand in the way


#: Where a child process kills itself: while rows are handed over, between dlt's steps, when the
#: scratch table is filled, and after the merge but before the load is closed.
KILLS = {
    "handing over": """
import loaders.files as files
tables = files._Checked.tables
def dying(self, *given):
    yield next(tables(self, *given))
    os.kill(os.getpid(), 9)
files._Checked.tables = dying
""",
    "before loading": """
import dlt
dlt.Pipeline.load = lambda self, *given: os.kill(os.getpid(), 9)
""",
    "after the copy": """
from dlt.destinations._adbc_jobs import AdbcParquetCopyJob
run = AdbcParquetCopyJob.run
def dying(self):
    run(self)
    os.kill(os.getpid(), 9)
AdbcParquetCopyJob.run = dying
""",
    "after the merge": """
import loaders.files as files
files.touched = lambda *given: os.kill(os.getpid(), 9)
""",
}


@pytest.mark.parametrize("moment", KILLS)
def test_a_load_that_was_killed_is_made_good_by_the_next(
    tmp_path: Path, moment: str, run_python: Callable[[str], int]
) -> None:
    path = leads(tmp_path / "leads.csv", 6_000, lead_77="x", lead_78="y")
    code = (
        "import os, sys\nfrom pathlib import Path\n"
        f"{KILLS[moment]}\n"
        "from loaders.files import load_file\n"
        f"load_file(Path({str(path)!r}), 'leads')\n"
    )
    assert run_python(code) == -9
    assert len(table("leads", "lead_id")) in {0, 5_998}  # all of them or none
    expect_the_next_load_to_make_good(path)


def test_a_load_killed_while_the_database_merges_is_made_good_by_the_next(tmp_path: Path) -> None:
    path = leads(tmp_path / "leads.csv", 6_000, lead_77="x", lead_78="y")
    with connect("owner") as holding:
        holding.execute("lock table raw_files.leads in share mode")
        command = [sys.executable, "-m", "stageline", "load", "file", path, "--as", "leads"]
        child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        with connect("owner", autocommit=True) as session:
            for _ in range(600):
                waiting = session.execute(
                    "select count(*) from pg_locks"
                    " where relation = 'raw_files.leads'::regclass and not granted"
                ).fetchone()
                if waiting == (1,):
                    break
                time.sleep(0.05)
        child.kill()
        child.wait()
        assert waiting == (1,)
    # the lock is gone: the server goes on with the merge of the dead process, beside the next load
    expect_the_next_load_to_make_good(path)


def expect_the_next_load_to_make_good(path: Path) -> None:
    """Loads ``path`` again and holds the result against a load that nothing disturbed."""
    done = load_file(path, "leads")
    assert done.new + done.unchanged == 5_998
    undisturbed = load_file(path, "leads", project_id="undisturbed")
    assert undisturbed.new == 5_998
    fields = [field.name for field in ENTITIES["leads"].fields]
    columns = ["source_system", *fields, "source_file", "source_line"]
    assert table("leads", *columns) == table("leads", *columns, project="undisturbed")
    lines = [(row["project_id"], row["source_line"]) for row in rejects(None, "leads")]
    assert sorted(lines) == [
        ("default", 79),
        ("default", 80),
        ("undisturbed", 79),
        ("undisturbed", 80),
    ]
    with connect("owner") as session:
        book = session.execute("select status from ops.loads order by started_at").fetchall()
    assert [status for (status,) in book] == ["failed", "success", "success"]
    assert list((config.settings().home / "dlt" / "checked").iterdir()) == []


@pytest.fixture
def run_python(database: Connection) -> Callable[[str], int]:
    """Runs code in a child process on the test's database; gives its exit code."""

    def run(code: str) -> int:
        assert database.dbname
        child = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, timeout=60, check=False
        )
        return child.returncode

    return run


def test_loads_at_the_same_time_do_not_mix(tmp_path: Path) -> None:
    paths = [leads(tmp_path / f"leads{n}.csv", 2_000, lead_3="x") for n in range(3)]
    with ThreadPoolExecutor() as pool:
        results = list(
            pool.map(
                lambda n: stageline(
                    "load", "file", paths[n], "--as", "leads", "--project", f"p{n}"
                ),
                range(3),
            )
        )
    assert [result.returncode for result in results] == [0, 0, 0], results[0].stderr
    for number in range(3):
        assert len(table("leads", "lead_id", project=f"p{number}")) == 1_999
    assert len(list(rejects(None, None))) == 3


def test_a_server_of_the_users_is_loaded_under_the_loaders_role(
    tmp_path: Path, database: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STAGELINE_DATABASE_URL", database.url())
    config.settings.cache_clear()
    assert load_file(leads(tmp_path / "leads.csv", 3, lead_0="x"), "leads").new == 2
    with connect("owner") as session:
        owners = session.execute(
            "select distinct tableowner from pg_tables where schemaname like 'raw_files%'"
        ).fetchall()
    assert owners == [("stageline_loader",)]


def test_a_database_that_goes_away_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(session: psycopg.Connection[Any], *_: object) -> int:
        with connect("owner", autocommit=True) as other:
            other.execute("select pg_terminate_backend(%s)", [session.info.backend_pid])
        return len(session.execute("select 1").fetchall())

    path = leads(tmp_path / "leads.csv", 3)
    with monkeypatch.context() as patch:
        patch.setattr("loaders.files.touched", gone)
        with pytest.raises(StagelineError, match="database went away during the load"):
            load_file(path, "leads")
    assert load_file(path, "leads").unchanged == 3


def test_a_full_disk_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pyarrow.parquet.ParquetWriter.write_table", full)
    with pytest.raises(StagelineError, match="nothing was loaded: No space left on device"):
        load_file(leads(tmp_path / "leads.csv", 3), "leads")


def test_nothing_is_kept_outside_of_the_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outside = tmp_path / "outside"
    monkeypatch.setattr("dlt.common.runtime.run_context.global_dir", lambda: str(outside))
    load_file(leads(tmp_path / "leads.csv", 3), "leads")
    assert not outside.exists()


def test_the_reader_sees_neither_rows_nor_rejects(tmp_path: Path) -> None:
    load_file(leads(tmp_path / "leads.csv", 3, lead_0="x"), "leads")
    for name in ("leads", "rejects"):
        result = stageline("psql", "--", "-Atc", f"table raw_files.{name}")
        assert "permission denied" in result.stderr
    with connect("transformer") as session:
        assert session.execute("select count(*) from raw_files.leads").fetchone() == (2,)


def test_scratch_tables_and_working_files_are_gone_afterwards(tmp_path: Path) -> None:
    load_file(leads(tmp_path / "leads.csv", 3, lead_0="x"), "leads")
    with connect("owner") as session:
        left = session.execute(
            "select table_name from information_schema.tables"
            " where table_schema = 'raw_files_staging' and table_name not like '\\_dlt%'"
        ).fetchall()
    assert left == []
    home = config.settings().home / "dlt"
    assert [path for path in home.rglob("*") if path.suffix in {".parquet", ".csv"}] == []
