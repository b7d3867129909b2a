"""``stageline export TABLE``: real files of a real database, read back by other programs."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import openpyxl
import psycopg
import pytest
from click.testing import CliRunner
from pyarrow import parquet

from jobs import table_export
from jobs.table_export import FORMATS, guarded
from stageline import config
from stageline.cli import main
from stageline.database import connect
from stageline.explain import models

pytestmark = pytest.mark.usefixtures("sample_database")

AT = datetime(2026, 3, 29, 0, 30, 0, 123456, tzinfo=UTC)
FORMULAS = [
    *("=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1"),
    *("＝1+1", "＋1", "－1", "＠x"),  # noqa: RUF001 - the full-width forms
    *("  =1+1", "\u00a0=1", "\ufeff=1", "\u200b=1", "'=1", "''@x"),
]
PLAIN = ["1=1", "a-b", "O'Hara", "'tis", "Їжак", 'a,b;"c"\r\nd', "", "_x0041_", "\u0001", "日本"]


@pytest.fixture
def owner(sample_database: Any) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(**sample_database.libpq(), autocommit=True) as session:
        yield session


def make(owner: psycopg.Connection[Any], definition: str, *rows: tuple[Any, ...]) -> None:
    """A table ``kpis.made`` with these rows, which the reader may read."""
    owner.execute(f"create table kpis.made ({definition})")
    owner.execute("grant select on kpis.made to stageline_reader")
    for row in rows:
        places = ", ".join(["%s"] * len(row))
        owner.execute(f"insert into kpis.made values ({places})", row)  # noqa: S608 - of this test


def run(*arguments: str) -> str:
    result = CliRunner().invoke(main, ["export", *arguments])
    assert result.exit_code == 0, result.output
    return result.output


def refusal(*arguments: str, code: int = 1) -> str:
    result = CliRunner().invoke(main, ["export", *arguments])
    assert result.exit_code == code, result.output
    assert result.stderr.count("\n") == 1
    return result.stderr


def file_of(table: str, form: str) -> Path:
    return config.settings().output / f"{table}.{form}"


def as_csv(table: str = "made") -> list[dict[str, str]]:
    with file_of(table, "csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, strict=True))


def as_json(table: str = "made") -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(
        file_of(table, "json").read_text(), parse_float=Decimal, parse_int=int
    )
    return rows


def as_sheet(table: str = "made") -> tuple[list[str], list[list[Any]]]:
    """Names, and the cells of each row, of a workbook that may hold formulas."""
    book = openpyxl.load_workbook(file_of(table, "xlsx"))
    names, *rows = book.worksheets[0].iter_rows()
    return [str(cell.value) for cell in names], [list(row) for row in rows]


def as_parquet(table: str = "made") -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = parquet.read_table(file_of(table, "parquet")).to_pylist()
    return rows


class TestEveryFormat:
    def test_holds_the_rows_of_the_table_in_the_order_of_its_grain(self) -> None:
        with connect("reader") as session:
            expected = session.execute(
                "select facility_id, rep_id, month, funnel_stage, stage_count, overall_rate_pct"
                " from kpis.conversion_funnel order by 1, 2, 3, 4"
            ).fetchall()
        assert len(expected) > 10
        for form in FORMATS:
            assert run("conversion_funnel", "--format", form) == (
                f"Wrote {file_of('conversion_funnel', form)}: {len(expected)} rows.\n"
            )
        names = [
            *("facility_id", "rep_id", "month", "funnel_stage", "stage_count", "overall_rate_pct")
        ]
        assert [
            (
                *(row["facility_id"], row["rep_id"], date.fromisoformat(row["month"])),
                *(row["funnel_stage"], int(row["stage_count"]), Decimal(row["overall_rate_pct"])),
            )
            for row in as_csv("conversion_funnel")
        ] == expected
        assert [
            (
                *(row[n] for n in names[:2]),
                date.fromisoformat(row["month"]),
                *(row[n] for n in names[3:]),
            )
            for row in as_json("conversion_funnel")
        ] == expected
        assert [tuple(row[n] for n in names) for row in as_parquet("conversion_funnel")] == expected
        heading, cells = as_sheet("conversion_funnel")
        at = [heading.index(name) for name in names]
        shown = [[row[n].value for n in at] for row in cells]
        assert [
            (*row[:2], row[2].date(), *row[3:5], round(Decimal(row[5]) * 100, 2)) for row in shown
        ] == expected

    def test_keeps_each_type_and_every_digit(self, owner: psycopg.Connection[Any]) -> None:
        definition = (
            "made_id bigint, amount numeric(38, 4), rate_pct numeric(5, 2), is_on boolean,"
            " month date, seen_at timestamptz, note text, tags text[], nothing integer"
        )
        most = Decimal("9" * 34 + ".1234")
        make(
            owner,
            definition,
            (1, Decimal("0.1000"), Decimal("33.33"), True, date(2026, 3, 29), AT, "x", ["a"], None),
            (2**63 - 1, most, Decimal("100"), False, date(1850, 1, 1), AT, None, None, None),
        )
        for form in FORMATS:
            run("made", "-f", form)
        first, last = as_csv()
        assert list(first.values()) == [
            *("1", "0.1000", "33.33", "true", "2026-03-29", "2026-03-29T00:30:00.123456Z"),
            *("x", "{a}", ""),
        ]
        assert (last["made_id"], last["amount"], last["note"]) == (str(2**63 - 1), str(most), "")
        first, last = as_json()
        assert (first["amount"], first["is_on"], first["nothing"]) == (Decimal("0.1"), True, None)
        assert (last["made_id"], last["amount"]) == (2**63 - 1, most)
        assert first["seen_at"] == "2026-03-29T00:30:00.123456Z"
        schema = parquet.read_schema(file_of("made", "parquet"))
        assert [str(field.type) for field in schema] == [
            *("int64", "decimal128(38, 4)", "decimal128(5, 2)", "bool", "date32[day]"),
            *("timestamp[us, tz=UTC]", "string", "string", "int64"),
        ]
        first, last = as_parquet()
        assert (first["seen_at"], first["month"], last["month"]) == (
            *(AT, date(2026, 3, 29), date(1850, 1, 1)),
        )
        assert (last["made_id"], last["amount"], last["note"]) == (2**63 - 1, most, None)
        _, (one, other) = as_sheet()
        assert [cell.data_type for cell in one] == ["n", "n", "n", "b", "d", "d", "s", "s", "n"]
        assert (one[2].value, one[2].number_format) == (0.3333, "0.00%")
        assert (one[4].value, one[4].number_format) == (datetime(2026, 3, 29), "yyyy-mm-dd")  # noqa: DTZ001 - a sheet has no zones
        assert one[5].value.replace(microsecond=0) == AT.replace(tzinfo=None, microsecond=0)
        assert other[0].value == str(2**63 - 1)  # a sheet would have kept 15 of its digits
        assert (other[1].value, other[4].value) == (str(most), "1850-01-01")
        assert one[8].value is None

    def test_of_no_rows_is_a_file_with_its_columns(self) -> None:
        for form in FORMATS:
            told = run("conversion_funnel", "-f", form, "-w", "rep_id=nobody")
            assert told.endswith(": 0 rows (none where rep_id=nobody).\n")
        assert file_of("conversion_funnel", "csv").read_text().startswith("facility_id,rep_id,")
        assert as_json("conversion_funnel") == []
        assert as_sheet("conversion_funnel")[0][:2] == ["facility_id", "rep_id"]
        assert as_sheet("conversion_funnel")[1] == []
        read = parquet.read_table(file_of("conversion_funnel", "parquet"))
        assert (read.num_rows, read.column_names[:2]) == (0, ["facility_id", "rep_id"])

    def test_writes_every_table_of_the_project(self) -> None:
        for name, model in models().items():
            for form in ("parquet", "xlsx"):  # those that have types of their own
                written = table_export.export(name, form)
            assert parquet.read_schema(file_of(name, "parquet")).names == [*model.columns]
            assert written.path == file_of(name, "xlsx")

    def test_takes_rows_in_batches(
        self, owner: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        make(owner, "made_id integer")
        owner.execute("insert into kpis.made select n from generate_series(1, 950) as n")
        monkeypatch.setattr(table_export, "_CELLS", 1)  # 100 rows at a time
        monkeypatch.setattr(table_export._Parquet, "_GROUP", 1000)
        for form in FORMATS:
            run("made", "-f", form)
        expected = list(range(1, 951))
        assert sorted(int(row["made_id"]) for row in as_csv()) == expected
        assert sorted(row["made_id"] for row in as_json()) == expected
        assert sorted(row["made_id"] for row in as_parquet()) == expected
        assert sorted(row[0].value for row in as_sheet()[1]) == expected
        assert parquet.ParquetFile(file_of("made", "parquet")).num_row_groups > 1


def _unescaped(text: str) -> str:
    """What a cell holds, as Excel reads it: `_x000D_` stands for a character there."""
    return re.sub("_x([0-9A-F]{4})_", lambda found: chr(int(found[1], 16)), text)


class TestFormulas:
    """Text that a spreadsheet would compute is read as text, and can be had as it was."""

    @pytest.fixture(autouse=True)
    def _made(self, owner: psycopg.Connection[Any]) -> None:
        texts = [*FORMULAS, *PLAIN]
        make(owner, "at integer, note text, amount numeric(9, 2)")
        for at, text in enumerate(texts):
            owner.execute("insert into kpis.made values (%s, %s, -1.50)", (at, text))

    def test_csv_has_an_apostrophe_before_them(self) -> None:
        run("made", "-f", "csv", "-w", "at>=0")
        rows = sorted(as_csv(), key=lambda row: int(row["at"]))
        assert [row["note"] for row in rows] == [*(f"'{text}" for text in FORMULAS), *PLAIN]
        assert {row["amount"] for row in rows} == {"-1.50"}

    def test_xlsx_has_them_as_marked_text(self) -> None:
        run("made", "-f", "xlsx")
        rows = sorted(as_sheet()[1], key=lambda row: int(row[0].value))
        for (_, note, amount), text in zip(rows, [*FORMULAS, *PLAIN], strict=True):
            assert note.data_type in ("s", "n" if not text else "s"), text
            assert note.quotePrefix == (text in FORMULAS and not text.startswith("'"))
            assert _unescaped(note.value or "") == text
            assert (amount.data_type, amount.value) == ("n", -1.5)

    def test_json_and_parquet_are_as_they_were(self) -> None:
        run("made", "-f", "json")
        run("made", "-f", "parquet")
        for rows in (as_json(), as_parquet()):
            found = [row["note"] for row in sorted(rows, key=lambda row: row["at"])]
            assert found == [*FORMULAS, *PLAIN]

    def test_one_apostrophe_less_gives_the_text_back(self) -> None:
        for text in [*FORMULAS, *PLAIN]:
            shown = guarded(text)
            is_guarded = shown.startswith("'") and table_export.looks_like_formula(
                shown.lstrip("'")
            )
            assert (shown[1:] if is_guarded else shown) == text


class TestColumns:
    def test_a_second_sheet_says_what_they_hold(self) -> None:
        run("ticket_sla_compliance", "-f", "xlsx")
        sheet = openpyxl.load_workbook(file_of("ticket_sla_compliance", "xlsx"))["columns"]
        heading, *rows = sheet.iter_rows(values_only=True)
        assert heading == ("column", "unit", "description", "formula")
        about = {row[0]: row[1:] for row in rows}
        assert list(about) == as_sheet("ticket_sla_compliance")[0]
        assert about["avg_resolution_seconds"][0] == "seconds"
        assert about["resolution_sla_pct"][0] == "percent, shown as such"
        assert "unassigned" in str(about["facility_id"][1])  # words that models share
        assert all(row[1] for row in about.values())
        assert (
            about["resolution_sla_pct"][2]
            == (models()["ticket_sla_compliance"].columns["resolution_sla_pct"]["formula"])
        )

    def test_parquet_says_it_with_each(self) -> None:
        run("ticket_sla_compliance", "-f", "parquet")
        schema = parquet.read_schema(file_of("ticket_sla_compliance", "parquet"))
        assert schema.field("avg_resolution_seconds").metadata[b"unit"] == b"seconds"
        assert {*(b"unit", b"description", b"formula")} <= {
            *schema.field("resolution_sla_pct").metadata
        }


class TestWhere:
    @pytest.fixture(autouse=True)
    def _made(self, owner: psycopg.Connection[Any]) -> None:
        make(
            owner,
            "n integer, amount numeric(9, 2), is_on boolean, month date, seen_at timestamptz,"
            " note text, kind name",
            (1, Decimal("1.5"), True, date(2026, 1, 1), AT, "a", "k"),
            (2, Decimal("2.5"), False, date(2026, 2, 1), AT, "b,c", "k"),
            (3, Decimal("-3"), None, date(2026, 3, 1), None, "", "l"),
            (4, None, None, None, None, None, "l"),
        )

    def test_chooses_rows(self) -> None:
        for typed, expected in [
            (["n=2"], {2}),
            (["n!=2"], {1, 3, 4}),
            ([" n >= 2 ", "n<4"], {2, 3}),
            (["n in 1,3..9"], {1, 3, 4}),
            (["n=99999999999999999999999"], set()),
            (["amount>1.5"], {2}),
            (["amount<=1.50"], {1, 3}),
            (["amount!=2.5"], {1, 3, 4}),
            (["amount="], {4}),
            (["amount!="], {1, 2, 3}),
            (["is_on=TRUE"], {1}),
            (["is_on in true,false"], {1, 2}),
            (["month>=2026-02-01"], {2, 3}),
            (["month in 2026-01-01..2026-02-28"], {1, 2}),
            (["seen_at>2026-03-29T02:30:00+02:00"], {1, 2}),
            (["seen_at<2026-03-29 00:30:00.123456"], set()),
            (["seen_at=2026-03-29T02:30:00.123456+02:00"], {1, 2}),
            (["note=a"], {1}),
            (["note!=a"], {2, 3, 4}),
            (["note="], {3, 4}),
            (["note!="], {1, 2}),
            (['note in "b,c",a'], {1, 2}),
            (["note>a"], {2}),
            (["note=a' or '1'='1"], set()),
            (["note=%s"], set()),
            (["kind in k"], {1, 2}),
            (["note=x = y"], set()),
        ]:
            run("made", "-f", "json", *(word for text in typed for word in ("-w", text)))
            assert {row["n"] for row in as_json()} == expected, typed

    def test_mistakes_are_one_line(self) -> None:
        for typed, said, code in [
            ("mont=2026-01-01", "made has no column mont. Did you mean month?", 1),
            ("month=soon", "month takes a date such as 2024-01-31, not 'soon'.", 1),
            ("month=2026-02-30", "month takes a date", 1),
            ("n=1.5", "n takes a whole number such as 12, not '1.5'.", 1),
            ("amount=NaN", "amount takes a number such as 12.5, not 'NaN'.", 1),
            ("amount=1e999999", "amount takes a number", 1),
            ("is_on=maybe", "is_on takes true or false, not 'maybe'.", 1),
            ("seen_at in 2026-01-01..x", "seen_at takes an instant", 1),
            ("note=\0", "note takes text", 1),
            ("n>", "names no value", 2),
            ("n in 1,,2", "names no value", 2),
            ("month", "cannot be read; it looks like", 2),
            ("=1", "cannot be read; it looks like", 2),
        ]:
            assert said in refusal("made", "-w", typed, code=code)
        assert not file_of("made", "csv").exists()


class TestMistakes:
    def test_tables_and_files(self, owner: psycopg.Connection[Any], tmp_path: Path) -> None:
        assert "Did you mean conversion_funnel?" in refusal("conversion_funel")
        assert "There is no KPI table" in refusal("leads; drop table kpis.fct_leads")
        assert "There is no KPI table pg_class" in refusal("pg_class")
        assert "does not say what to write" in refusal(
            "fct_leads", "-o", str(tmp_path / "leads.doc"), code=2
        )
        (tmp_path / "file").write_text("")
        assert "name another file with --output" in refusal(
            "fct_leads", "-o", str(tmp_path / "file" / "leads.csv")
        )
        owner.execute("drop table kpis.cohort_retention")
        assert "cohort_retention is not built yet. Run `stageline build`" in refusal(
            "cohort_retention"
        )

    def test_number_that_has_no_place_leaves_the_old_file(
        self, owner: psycopg.Connection[Any]
    ) -> None:
        make(owner, "made_id integer, amount numeric(9, 2)", (1, 1))
        forms = ["json", "parquet", "xlsx"]
        before = {}
        for form in forms:
            run("made", "-f", form)
            before[form] = file_of("made", form).read_bytes()
        owner.execute("insert into kpis.made values (2, 'NaN')")
        for form in forms:
            assert "made.amount holds" in refusal("made", "-f", form)
            assert file_of("made", form).read_bytes() == before[form]
        assert len([*config.settings().output.iterdir()]) == len(forms)
        run("made", "-f", "csv")
        assert [row["amount"] for row in as_csv()] == ["1.00", "NaN"]

    def test_instant_that_no_file_can_hold(self, owner: psycopg.Connection[Any]) -> None:
        make(owner, "made_id integer, seen_at timestamptz", (1, "infinity"), (2, "2026-01-01"))
        assert "made holds a value that cannot be read" in refusal("made")
        run("made", "-w", "seen_at<2100-01-01")
        assert [row["made_id"] for row in as_csv()] == ["2"]

    def test_text_that_no_cell_can_hold(self, owner: psycopg.Connection[Any]) -> None:
        make(owner, "note text", ("x" * 32_768,))
        assert "a text of 32,768 characters" in refusal("made", "-f", "xlsx")

    def test_more_rows_than_a_sheet_has(
        self, owner: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        make(owner, "made_id integer", (1,), (2,), (3,))
        monkeypatch.setattr(table_export._Xlsx, "_ROWS", 3)
        assert "more rows than a sheet can hold (2)" in refusal("made", "-f", "xlsx")
        run("made", "-f", "xlsx", "-w", "made_id<3")
        assert len(as_sheet()[1]) == 2


def test_the_file_says_the_format_and_the_format_wins(tmp_path: Path) -> None:
    assert run("fct_leads", "-o", str(tmp_path / "new" / "leads.JSON")).startswith("Wrote ")
    assert json.loads((tmp_path / "new" / "leads.JSON").read_text())
    run("fct_leads", "-o", str(tmp_path / "leads.txt"), "-f", "csv")
    assert (tmp_path / "leads.txt").read_text().startswith("lead_key,")


def test_a_killed_export_leaves_the_old_file(owner: psycopg.Connection[Any]) -> None:
    make(owner, "made_id integer", (1,))
    run("made")
    before = file_of("made", "csv").read_text()
    code = (
        "import os, signal, pathlib\n"
        "pathlib.Path.replace = lambda *given: os.kill(os.getpid(), signal.SIGKILL)\n"
        "from jobs.table_export import export\n"
        "export('made', 'csv')\n"
    )
    owner.execute("insert into kpis.made values (2)")
    child = subprocess.run(
        [sys.executable, "-c", code], env=os.environ.copy(), timeout=60, check=False
    )
    assert child.returncode == -signal.SIGKILL
    assert file_of("made", "csv").read_text() == before
    run("made")
    assert len(as_csv()) == 2


def test_the_pipeline_is_still_written_in_its_own_form() -> None:
    assert "sales_pipeline.json" in run("pipeline")
