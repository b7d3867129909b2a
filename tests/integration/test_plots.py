"""``stageline plot``: pictures of a real database, by what they show and by what they ask for."""

import json
import re
import struct
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from click.testing import CliRunner

from jobs.plots import PLOTS, specification
from jobs.plots.picture import write
from jobs.plots.reading import labels, thinned
from stageline import config
from stageline.cli import main
from stageline.database import connect
from stageline.errors import StagelineError
from tests.integration.test_readme import lines

pytestmark = pytest.mark.usefixtures("sample_database")

SUBJECT = (
    "source_system text, project_id text, subject_type text, subject_id text, subject_name text"
)
BUILT = "updated_at timestamptz default '2026-11-21 19:00Z'"

#: Tables of sales activity as these pictures read them, and rows of one rep of each.
TABLES = {
    "call_heatmap": "weekday integer, hour integer, booked bigint, conducted bigint, held bigint,"
    " due bigint",
    "call_volume": "period_type text, period_start date, conducted bigint, target numeric(38, 4),"
    " held bigint, due bigint",
    "bdr_leaderboard": "period_type text, period_start date, calls bigint, agreements bigint,"
    " lists bigint, sales bigint, score numeric(12, 2), rank integer, previous_rank integer,"
    " rank_change integer",
    "kpi_target_attainment": "period_type text, period_start date, kpi text, currency text,"
    " actual numeric(38, 4), target numeric(38, 4), attainment_pct numeric(12, 2), status text",
}
LONG = "Maximilian Alexander of Hohenlohe and Langenburg"
EVIL = "</script><script>alert(1)</script>"


@pytest.fixture
def owner(sample_database: Any) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(**sample_database.libpq(), autocommit=True) as session:
        yield session


@pytest.fixture
def activity(owner: psycopg.Connection[Any]) -> psycopg.Connection[Any]:
    """A session in which the tables of ``TABLES`` are empty, and scores are weighed."""
    for name, columns in TABLES.items():
        owner.execute(f"drop table if exists kpis.{name} cascade")
        owner.execute(f"create table kpis.{name} ({SUBJECT}, {columns}, {BUILT})")
    owner.execute("drop table if exists reference.score_weights cascade")
    owner.execute(
        "create table reference.score_weights as select * from (values ('calls', 1.0),"
        " ('agreements', 3), ('lists', 2), ('sales', 5)) as made (component, weight)"
    )
    owner.execute("grant select on all tables in schema kpis, reference to stageline_reader")
    return owner


def fill(owner: psycopg.Connection[Any], table: str, *rows: tuple[Any, ...]) -> None:
    """Rows of ``table``: subject type, id and name, then its own columns."""
    names = [*re.findall(r"(\w+) (?:text|date|integer|bigint|numeric)", TABLES[table])]
    for row in rows:
        columns = ", ".join(
            ["source_system, project_id, subject_type, subject_id, subject_name", *names]
        )
        places = ", ".join(["%s"] * (len(row) + 2))
        owner.execute(
            f"insert into kpis.{table} ({columns}) values ({places})",  # noqa: S608 - of this test
            ("made", "p", *row),
        )


def run(*arguments: str) -> str:
    result = CliRunner().invoke(main, ["plot", *arguments])
    assert result.exit_code == 0, result.output
    return result.output


def refusal(*arguments: str, code: int = 1) -> str:
    result = CliRunner().invoke(main, ["plot", *arguments])
    assert result.exit_code == code, result.output
    assert result.stderr.count("\n") == 1
    return result.stderr


def shown(made: dict[str, Any]) -> list[dict[str, Any]]:
    """All rows that a picture draws."""
    found: list[dict[str, Any]] = []

    def look(at: Any) -> None:
        if isinstance(at, dict):
            found.extend(at["values"] if isinstance(at.get("values"), list) else [])
            for each in at.values():
                look(each)
        elif isinstance(at, list):
            for each in at:
                look(each)

    look({name: part for name, part in made.items() if name != "datasets"})
    return found + [row for rows in made.get("datasets", {}).values() for row in rows]


def titles(made: dict[str, Any]) -> str:
    return f"{made['title']['text']} | {made['title']['subtitle']}"


class TestFiles:
    def test_png_svg_and_html(self, tmp_path: Path) -> None:
        for form in ("png", "svg", "html"):
            path = tmp_path / "new" / f"funnel.{form}"
            assert run("funnel", "-o", str(path)) == f"Wrote {path}.\n"
        png = (tmp_path / "new" / "funnel.png").read_bytes()
        assert png.startswith(b"\x89PNG")
        assert struct.unpack(">II", png[16:24]) == (2400, 1400)
        svg = ET.fromstring((tmp_path / "new" / "funnel.svg").read_text())  # noqa: S314 - our own
        texts = [element.text for element in svg.iter("{http://www.w3.org/2000/svg}text")]
        assert {"lead", "sql", "opportunity", "won"} <= {*texts}
        assert "7 · 58 % of the stage before" in texts

    def test_the_folder_of_exports_is_the_default(self) -> None:
        run("funnel")
        assert (config.settings().output / "funnel.png").stat().st_size > 10_000

    def test_html_asks_nobody_and_holds_names_as_text(
        self, activity: psycopg.Connection[Any], tmp_path: Path
    ) -> None:
        fill(
            activity,
            "bdr_leaderboard",
            ("rep", "a", EVIL, "month", "2026-11-01", 1, 0, 0, 0, 1, 1, None, None),
        )
        path = tmp_path / "leaders.html"
        run("bdr_leaderboard", "-o", str(path))
        page = path.read_text()
        assert "default-src 'none'; script-src 'unsafe-inline'" in page
        # Nothing that a browser would fetch: no address in an attribute, a style or an import.
        outside = re.sub(r"<script>.*?</script>", "", page, flags=re.DOTALL)
        assert not re.search(r"src=|href=|url\(|@import|//", outside)
        assert not re.search(r"<(link|img|iframe|object|embed|base)\b", outside)
        assert not re.search(r"<script[^>]+src", page)
        assert page.count("<script>") == page.count("</script>") == 2
        assert "alert(1)</script>" not in page
        drawn = json.loads(page.rpartition('vegaEmbed("#picture", ')[2].partition(", {actions")[0])
        assert EVIL[:20] in json.dumps(drawn)
        # The names of the formats are the only addresses in what is drawn.
        assert {*re.findall(r"https?://[^\"\\ ]+", json.dumps(drawn))} == {drawn["$schema"]}

    def test_a_file_that_cannot_be_written(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        assert "name another file with --output" in refusal(
            "funnel", "-o", str(tmp_path / "file" / "funnel.svg")
        )

    def test_every_kind_is_in_the_help(self) -> None:
        told = CliRunner().invoke(main, ["plot", "--help"]).output
        for name, plot in PLOTS.items():
            assert re.search(rf"^ +{name} +{re.escape(plot.about)}", told, re.MULTILINE), name


class TestWhatIsShown:
    def test_funnel(self) -> None:
        made = specification("funnel")
        reached = {row["stage"]: row["reached"] for row in shown(made)}
        with connect("reader") as session:
            assert reached == dict(
                session.execute(
                    "select funnel_stage, sum(stage_count)::float from kpis.conversion_funnel"
                    " group by 1"
                ).fetchall()
            )
        assert "12 leads created Jan 2024 to Feb 2024 · built " in titles(made)
        one = specification("funnel", ["month=2024-02-01", "rep_id=rep-ana"])
        assert {row["stage"]: row["reached"] for row in shown(one)}["lead"] == 1
        assert "| 1 lead created Feb 2024 · built " in titles(one)

    def test_cohort(self) -> None:
        made = specification("cohort", ["months_since<3"])
        assert [(row["cohort"], row["months"], row["rate"]) for row in shown(made)] == [
            *(("Jan 2024 · 8 leads", months, 87.5 if months else 100) for months in range(3)),
            *(("Feb 2024 · 4 leads", months, 100) for months in range(3)),
        ]
        assert "the first 24 of" in titles(specification("cohort"))

    def test_pipeline(self) -> None:
        rows = shown(specification("pipeline_trend", ["currency=EUR"]))
        assert rows[-1]["value"] == 132_000
        assert {row["measure"] for row in rows} == {"open", "weighted by chance"}
        scenarios = shown(specification("pipeline_scenarios", ["currency=EUR"]))
        values = {row["scenario"]: row["weighted"] for row in scenarios}
        assert values["weighted"] == 322_450
        assert [*values.values()] == sorted(values.values(), reverse=True)
        both = specification("pipeline_scenarios")
        assert len(both["vconcat"]) == 2  # amounts of two currencies are never added

    def test_tickets(self) -> None:
        rows = shown(specification("ticket_sla", ["month=2024-01-01"]))
        assert {row["measure"]: (row["met"], row["judged"]) for row in rows} == {
            "first response": (6, 7),
            "resolution": (5, 5),
        }

    def test_cumulative_flow(self, owner: psycopg.Connection[Any]) -> None:
        for version, day, came in (
            (1, "2026-03-01", (9, 9, 9, 9, 9, 9, 9)),
            (2, "2026-03-01", (3, 1, 0, 0, 0, 0, 0)),
            (2, "2026-03-02", (4, 2, 3, 0, 0, 0, 1)),  # one deal passed the quotation over
        ):
            owner.execute(
                """
                insert into kpis.flow_throughput (
                    report_version, source_system, project_id, date_day, started, finished, wip,
                    impossible_durations, cumulative_started, cumulative_finished, wip_seconds,
                    cumulative_lead, cumulative_quote, cumulative_order, cumulative_procurement,
                    cumulative_mfg, cumulative_delivery, cumulative_payment, updated_at
                )
                values (%s, 'file', 'p', %s, 0, 0, 0, 0, 0, 0, 0, %s, %s, %s, %s, %s, %s, %s, now())
                """,
                (version, day, *came),
            )
        made = specification("cumulative_flow")
        bands = {(row["day"], row["stage"]): row["there"] for row in shown(made)}
        assert [bands["1 Mar 2026", stage] for stage in ("Lead", "Quote", "Order")] == [2, 1, 0]
        assert [
            bands["2 Mar 2026", stage]
            for stage in ("Lead", "Quote", "Order", "Delivery", "Payment")
        ] == [1, 0, 2, 0, 1]
        assert "version 2 of the stage map" in titles(made)
        assert shown(specification("cumulative_flow", ["report_version=1"]))[-1]["there"] == 9
        with pytest.raises(StagelineError, match="choose one with --where report_version=1 or"):
            specification("cumulative_flow", ["report_version in 1,2"])

    def test_call_heatmap(self, activity: psycopg.Connection[Any]) -> None:
        fill(
            activity,
            "call_heatmap",
            ("all", "all", "all", 1, 9, 8, 7, 6, 8),
            ("all", "all", "all", 6, 19, 1, 1, 1, 1),
            ("rep", "a", "Ana", 1, 9, 3, 2, 2, 3),
            ("rep", "b", "Ben", 1, 9, 5, 5, 4, 5),
            ("team", "b", "Ben", 1, 9, 8, 7, 6, 8),
        )
        rows = shown(specification("call_heatmap"))
        cells = {(row["weekday"], row["hour"]): row["conducted"] for row in rows}
        assert (cells["Monday", "9:00"], cells["Saturday", "19:00"]) == (7, 1)
        assert (cells["Friday", "8:00"], len(cells)) == (0, 6 * 12)
        for who in ("a", "Ana", "rep:a"):
            made = specification("call_heatmap", subject=who)
            assert sum(row["conducted"] for row in shown(made)) == 2
            assert "rep Ana" in titles(made)
        with pytest.raises(
            StagelineError, match="Ben stands for several: name one of rep:b, team:b"
        ):
            specification("call_heatmap", subject="Ben")
        with pytest.raises(StagelineError, match=r"knows no rep or team An\. Did you mean Ana\?"):
            specification("call_heatmap", subject="An")

    def test_call_volume(self, activity: psycopg.Connection[Any]) -> None:
        fill(
            activity,
            "call_volume",
            ("all", "all", "all", "week", "2026-11-02", 30, 25, 0, 0),
            ("all", "all", "all", "week", "2026-11-09", 20, 25, 0, 0),
            ("all", "all", "all", "week", "2026-11-16", 5, 25, 0, 0),
            ("all", "all", "all", "week", "2026-11-23", 0, 25, 0, 0),  # calls are booked for it
            ("all", "all", "all", "week", "2026-10-26", 5, None, 0, 0),
            ("all", "all", "all", "day", "2026-11-20", 99, None, 0, 0),
        )
        made = specification("call_volume")
        assert [(row["week"], row["conducted"], row["reached"]) for row in shown(made)] == [
            ("26 Oct", 5, "no target"),
            ("2 Nov", 30, "target reached"),
            ("9 Nov", 20, "below the target"),
            ("16 Nov", 5, "week goes on"),
        ]
        past = shown(specification("call_volume", ["period_start<2026-11-16"]))
        assert past[-1]["reached"] == "below the target"

    def test_leaderboard(self, activity: psycopg.Connection[Any]) -> None:
        fill(
            activity,
            "bdr_leaderboard",
            *(
                *(
                    ("rep", f"r{at}", LONG, "month", "2026-11-01", 40 - at, 1, 2, 0, 47 - at, at)
                    + ((None, None) if at == 3 else (at + 1, 1))
                    for at in range(1, 41)
                ),
                ("rep", "r1", LONG, "month", "2026-10-01", 9, 9, 9, 9, 999, 1, None, None),
                ("rep", *["unassigned"] * 2, "month", "2026-10-01", 3, 0, 0, 0, 3, *[None] * 3),
                ("team", "t", "Team", "month", "2026-11-01", 9, 9, 9, 9, 99, 1, 3, 2),
                ("team", "t", "Team", "week", "2026-11-16", 9, 9, 9, 9, 99, 1, 3, 2),
            ),
        )
        made = specification("bdr_leaderboard")
        parts = [row for row in shown(made) if "part" in row]
        ends = [row for row in shown(made) if "score" in row]
        assert len(ends) == 25
        assert len({row["who"] for row in ends}) == 25  # however alike their names are
        assert max(len(row["who"]) for row in ends) < 40
        assert [row["said"] for row in ends[:3]] == ["46 · ▲1", "45 · ▲1", "44 · new"]
        for end in ends:
            assert end["score"] == sum(p["points"] for p in parts if p["who"] == end["who"])
        assert "Nov 2026 so far" in titles(made)
        assert "the first 25 of 40 reps" in titles(made)
        before = specification("bdr_leaderboard", ["period_start=2026-10-01"])
        assert "Leaderboard, Oct 2026 |" in titles(before)
        assert "1 rep " in titles(before)  # who is nobody is in no ranking
        assert [(row["who"], row["said"]) for row in shown(before) if "score" in row][1] == (
            "unassigned",
            "3",
        )
        team = specification("bdr_leaderboard", ["subject_type=team"])
        assert "1 team" in titles(team)
        activity.execute("update kpis.bdr_leaderboard set project_id = 'q' where subject_id = 'r1'")
        with pytest.raises(StagelineError, match="within a project: choose one with --where"):
            specification("bdr_leaderboard")

    def test_target_attainment(self, activity: psycopg.Connection[Any]) -> None:
        start = ("month", "2026-11-01")
        fill(
            activity,
            "kpi_target_attainment",
            ("rep", "a", "Ana", *start, "revenue", "EUR", 50, 200, 25, "missed"),
            ("rep", "a", "Ana", *start, "calls", "XXX", 50, None, None, None),
            ("all", "all", "all", *start, "calls", "XXX", 0, 10, 0, "missed"),
        )
        rows = shown(specification("target_attainment"))
        assert [(row["who"], row["kpi"], row["said"]) for row in rows] == [
            ("all reps", "calls", "0 %"),
            ("Ana", "revenue EUR", "25 %"),
        ]
        activity.execute("update kpis.kpi_target_attainment set target = null")
        with pytest.raises(StagelineError, match="No target is set for these rows; no file"):
            specification("target_attainment")


def test_each_draws_one_row_and_says_where_there_is_none(
    activity: psycopg.Connection[Any], tmp_path: Path
) -> None:
    value = {"text": "all", "date": "2026-11-01", "integer": 1, "bigint": 1, "boolean": True}
    value |= {"timestamp with time zone": "2026-11-21 19:00Z", "numeric": 1}
    path = tmp_path / "one.svg"
    for name, plot in PLOTS.items():
        columns = activity.execute(
            "select attname, format_type(atttypid, null) from pg_attribute"
            " where attrelid = %s::regclass and attnum > 0 and not attisdropped",
            [f"kpis.{plot.table}"],
        ).fetchall()
        known = {"period_type": "week" if name == "call_volume" else "month"}
        known |= {"subject_type": "all" if plot.of_subject else "rep"}
        activity.execute(f"truncate kpis.{plot.table}")
        activity.execute(
            f"insert into kpis.{plot.table} ({', '.join(column for column, _ in columns)})"  # noqa: S608 - of this test
            f" values ({', '.join(['%s'] * len(columns))})",
            [known.get(column, value[kind]) for column, kind in columns],
        )
        write(specification(name), "svg", path)
        svg = path.read_text()
        assert svg.count("<path") > 5, name
        assert not re.search(r">(null|undefined|NaN|Infinity)<", svg), name
        path.unlink()
        activity.execute(f"truncate kpis.{plot.table}")
        assert "is empty; no file was written." in refusal(name, "-o", str(path))
        assert not path.exists()


def test_mistakes_are_one_line(owner: psycopg.Connection[Any]) -> None:
    assert "There is no plot funel. Did you mean funnel?" in refusal("funel")
    assert "end its name in .png, .svg, .html" in refusal("funnel", "-o", "x.pdf", code=2)
    assert "no column mont. Did you mean month?" in refusal("funnel", "-w", "mont=1")
    assert "month takes a date" in refusal("funnel", "-w", "month=soon")
    assert "has no row where month=1999-01-01; no file was written" in refusal(
        "funnel", "-w", "month=1999-01-01"
    )
    assert "choose some with --where" in refusal("funnel", "--subject", "rep-ana")
    owner.execute("drop table kpis.cohort_retention")
    assert "cohort_retention is not built yet" in refusal("cohort")


def test_labels_are_short_and_differ() -> None:
    made = labels([LONG, LONG, f"{LONG} II", "Li", "", " \n "])
    assert len({*made}) == len(made)
    assert all(len(label) <= 30 for label in made)
    assert made[3] == "Li"


def test_long_spans_are_thinned_to_their_last_day() -> None:
    days = [date(2020, 1, 1) + timedelta(days=at) for at in range(2000)]
    kept = thinned(days)
    assert days[-1] in kept
    assert 300 < len(kept) <= 400
    assert thinned(days[:30]) == {*days[:30]}


#: Plots of tables that the sample has no row for; `test_sales_activity` draws them.
ON_GENERATED_DATA = (["bdr_leaderboard"], ["call_heatmap"])


def test_what_is_written_about_them_can_be_typed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    typed = [
        words[1:]
        for page in ("README.md", "docs/exports-and-plots.md")
        for words in lines(page)
        if words[1:2] in (["export"], ["plot"])
        and words[2:] not in (["pipeline"], *ON_GENERATED_DATA)
    ]
    assert len(typed) > 8
    for words in typed:
        result = CliRunner().invoke(main, words)
        assert result.exit_code == 0, result.output
        assert "--help" in words or result.output.startswith("Wrote ")
