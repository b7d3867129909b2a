"""`stageline generate sales`: into a real database, again, as files and back, and away."""

import hashlib
import os
import subprocess
import sys
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest
from click.testing import CliRunner
from psycopg import sql

from loaders import generate_sales
from loaders.entities import ENTITIES
from loaders.files import GENERATED, load_file
from loaders.generate_sales import Plan, generate, remove, write
from loaders.sales_calendar import WorkingDays
from loaders.sales_reps import Department
from loaders.sales_stories import COLUMNS, rows
from stageline.cli import main
from stageline.config import settings
from stageline.database import connect
from stageline.errors import StagelineError
from stageline.settings import projects

pytestmark = pytest.mark.usefixtures("database")

DAY = date(2026, 11, 20)
PROJECT = "generated"
SMALL = Plan(as_of=DAY, leads=25)


def fields(entity: str) -> list[str]:
    """All fields of an entity."""
    return [field.name for field in ENTITIES[entity].fields]


def held(entity: str, *columns: str, project: str = PROJECT) -> list[tuple[Any, ...]]:
    """Columns of what a project holds, in the order of the key."""
    query = sql.SQL("select {} from {} where project_id = %s order by {}").format(
        sql.SQL(", ").join(map(sql.Identifier, columns)),
        sql.Identifier("raw_files", entity),
        sql.SQL(", ").join(map(sql.Identifier, ENTITIES[entity].key)),
    )
    with connect("owner") as session:
        return session.execute(query, [project]).fetchall()


def everything(project: str = PROJECT) -> dict[str, list[tuple[Any, ...]]]:
    """All fields of all entities."""
    return {entity: held(entity, *fields(entity), project=project) for entity in COLUMNS}


def asked(query: str) -> list[tuple[Any, ...]]:
    """What the owner is answered."""
    with connect("owner") as session:
        return session.execute(query).fetchall()


def run(*words: str) -> str:
    """What the command says on stdout; it must succeed."""
    done = CliRunner().invoke(main, ["generate", "sales", *words])
    assert done.exit_code == 0, done.output
    return done.stdout


def refused(*words: str) -> str:
    """What the command says when it refuses: one line."""
    done = CliRunner().invoke(main, ["generate", "sales", *words])
    assert done.exit_code == 1, done.output
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert "Traceback" not in done.output
    return line


def test_it_lands_in_a_project_of_its_own() -> None:
    said = run("--as-of", "2026-11-20", "--seed", "3")
    counts = {entity: len(rows) for entity, rows in everything().items()}
    assert counts["leads"] == 150
    assert f"150 leads, {counts['pipeline_items']:,} pipeline items" in said
    assert f"{counts['activities']:,} activities, {counts['sales']:,} sales" in said
    assert (
        "in project generated, as of 2026-11-20 00:00 Europe/Kyiv. Next: `stageline build`" in said
    )
    assert len(said.splitlines()) == 1
    for entity, count in counts.items():
        origin = held(entity, "source_system", "source_file", "source_line")
        assert {row[:2] for row in origin} == {("file", GENERATED)}
        assert sorted(row[2] for row in origin) == list(range(1, count + 1))
    (project,) = projects.projects()
    assert (project.source_system, project.project_id) == ("file", PROJECT)
    assert (project.timezone, project.currency, project.is_active) == ("Europe/Kyiv", "EUR", True)
    assert project.name == generate_sales.PROJECT_NAME
    days = asked("select day, as_weekday from settings.day_exceptions order by day")
    assert days == [(date(2026, 8, 24), None), (date(2026, 10, 1), None)]
    assert asked("select count(*) from settings.calendar_windows") == [(5,)]
    targets = asked(
        "select kpi, subject_type, subject_id from settings.kpi_targets order by kpi, subject_id"
    )
    assert ("calls", "rep", None) in targets and ("revenue", "rep", None) in targets
    reps = {row[0] for row in held("reps", "rep_id")}
    teams = {row[0] for row in held("reps", "team_id")}
    assert {row[2] for row in targets} <= reps | teams | {None}
    loads = asked(
        "select source, entity, project_id, status, rows_read, rows_loaded from ops.loads"
    )
    assert loads == [("file", None, PROJECT, "success", sum(counts.values()), sum(counts.values()))]


def test_what_lands_is_what_was_told() -> None:
    plan = Plan(as_of=DAY, leads=15, seed=4)
    generate(plan, PROJECT)
    window = plan.window
    found: dict[str, list[tuple[Any, ...]]] = {entity: [] for entity in COLUMNS}
    for entity, row in rows(Department(window, WorkingDays(window), 1, plan.seed), 15, "EUR"):
        found[entity].append(
            tuple(
                datetime.fromtimestamp(value, UTC)
                if value is not None and name.endswith("_at")
                else value
                for name, value in zip(COLUMNS[entity], row, strict=True)
            )
        )
    for entity, told in found.items():
        assert told
        assert set(held(entity, *COLUMNS[entity])) == set(told), entity


def test_again_changes_nothing_and_another_seed_replaces_it_all() -> None:
    generate(SMALL, PROJECT)
    first = everything()
    versions = {entity: held(entity, "xmin") for entity in COLUMNS}
    again = generate(SMALL, PROJECT)
    assert (again.replaced, again.written, again.gone) == (True, 0, 0)
    assert {entity: held(entity, "xmin") for entity in COLUMNS} == versions

    said = run("--as-of", "2026-11-20", "--leads", "20", "--seed", "2")
    assert "in place of what was generated there before" in said
    generate(Plan(as_of=DAY, leads=20, seed=2), "fresh")
    fresh = everything("fresh")
    assert {e: [r for r in rows if not r[-1]] for e, rows in everything().items()} == fresh
    gone = {entity: sum(bool(row[-1]) for row in rows) for entity, rows in everything().items()}
    assert gone["leads"] == 5 and gone["activities"] > 50

    assert generate(SMALL, PROJECT).written > 0
    assert {e: [r for r in rows if not r[-1]] for e, rows in everything().items()} == first


def test_what_users_set_in_the_project_stays() -> None:
    generate(SMALL, PROJECT)
    for words in (
        ["targets", "set", "file", PROJECT, "reps", "calls", "30", "--from", "2026-11-01"],
        ["hours", "set", "file", PROJECT, "mon-fri 10:00-16:00", "--from", "2026-11-01"],
    ):
        done = CliRunner().invoke(main, ["settings", *words])
        assert done.exit_code == 0, done.output
    before = asked("select * from settings.kpi_targets order by 1")
    hours = asked("select * from settings.calendars order by 1")
    run("--as-of", "2026-11-20", "--leads", "5")
    assert asked("select * from settings.kpi_targets order by 1") == before
    assert asked("select * from settings.calendars order by 1") == hours


def test_the_zone_and_the_currency_of_the_project_are_kept() -> None:
    run("--as-of", "2026-11-20", "--leads", "5", "--timezone", "Asia/Tokyo", "--currency", "JPY")
    said = run("--as-of", "2026-11-20T12:00:00Z", "--leads", "5")
    assert "as of 2026-11-20 21:00 Asia/Tokyo" in said
    assert {row[0] for row in held("leads", "currency")} == {"JPY"}
    for (instant,) in held("pipeline_items", "created_at"):
        assert instant.hour >= 23 or instant.hour < 11  # 8 to 20 o'clock in Tokyo


def test_one_that_fails_leaves_everything_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    generate(SMALL, PROJECT)
    before = everything()
    merge = generate_sales._merge

    def fails(session: psycopg.Connection[Any], entity: str) -> int:
        count = merge(session, entity)
        if entity == "sales":
            raise StagelineError("a blow")
        return count

    monkeypatch.setattr(generate_sales, "_merge", fails)
    with pytest.raises(StagelineError, match="a blow"):
        generate(Plan(as_of=DAY, leads=40, seed=9), PROJECT)
    assert everything() == before
    assert asked("select status, error from ops.loads order by started_at") == [
        ("success", None),
        ("failed", "a blow"),
    ]
    assert asked("select from pg_tables where schemaname = 'raw_files_staging'") == []


def test_files_bring_the_same_rows(tmp_path: Path) -> None:
    folder = tmp_path / "made-up"
    plan = Plan(as_of=datetime.fromisoformat("2026-04-03T15:00:00+03:00"), leads=60, seed=5)
    done = write(plan, folder)
    generate(plan, PROJECT)
    for entity in COLUMNS:
        loaded = load_file(folder / f"{entity}.csv", entity, project_id="as-files")
        assert (loaded.rejected, loaded.duplicate, loaded.unread) == (0, 0, []), entity
        assert loaded.new == done.rows[entity] == len(held(entity, "project_id"))
        of_files = held(entity, *fields(entity), project="as-files")
        assert of_files == held(entity, *fields(entity)), entity


def test_the_same_is_written_byte_by_byte_on_any_machine(tmp_path: Path) -> None:
    sums = []
    for number, (seed, zone) in enumerate((("1", "UTC"), ("2", "America/New_York"))):
        folder = tmp_path / str(number)
        subprocess.run(
            [
                *(sys.executable, "-m", "stageline", "generate", "sales"),
                *("--as-of", "2026-11-20", "--leads", "20", "--output", str(folder)),
            ],
            env={**os.environ, "PYTHONHASHSEED": seed, "TZ": zone},
            check=True,
            capture_output=True,
            timeout=60,
        )
        sums.append(
            {path.name: hashlib.sha256(path.read_bytes()).digest() for path in folder.iterdir()}
        )
    assert set(sums[0]) == {f"{entity}.csv" for entity in COLUMNS}
    assert sums[0] == sums[1]


def test_files_that_are_there_are_not_written_over(tmp_path: Path) -> None:
    (tmp_path / "leads.csv").write_text("mine\n")
    said = refused("--as-of", "2026-11-20", "--output", str(tmp_path))
    assert said == (
        f"error: {tmp_path / 'leads.csv'} is there already. Remove it, or name another folder."
    )
    assert [path.name for path in tmp_path.glob("*.csv")] == ["leads.csv"]
    assert (tmp_path / "leads.csv").read_text() == "mine\n"
    (tmp_path / "file").write_text("")
    assert "Cannot write to" in refused("--output", str(tmp_path / "file" / "folder"))


def test_generated_and_other_data_are_not_mixed(tmp_path: Path) -> None:
    path = tmp_path / "tickets.csv"
    path.write_text("ticket_id,priority,status,created_at\nt-1,high,open,2026-01-05T09:00:00Z\n")
    load_file(path, "tickets", project_id="mine")
    assert refused("--project", "mine") == (
        "error: Project mine holds tickets that were not generated (tickets.csv)."
        " Give another one with --project."
    )
    assert refused("--project", "mine", "--remove").startswith("error: Project mine holds tickets")
    assert held("tickets", "ticket_id", project="mine") == [("t-1",)]
    assert projects.projects() == []

    generate(SMALL, PROJECT)
    with pytest.raises(StagelineError, match="holds generated data") as caught:
        load_file(path, "tickets", project_id=PROJECT)
    assert "stageline generate sales --project generated --remove" in str(caught.value)
    assert held("tickets", "ticket_id") == []
    remove(PROJECT)
    assert load_file(path, "tickets", project_id=PROJECT).new == 1


def test_it_can_be_taken_away() -> None:
    assert refused("--remove") == "error: Project generated holds nothing that was generated."
    generate(SMALL, PROJECT)
    generate(SMALL, "another")
    count = sum(len(rows) for rows in everything().values())
    assert run("--remove").startswith(f"Removed {count:,} generated rows; project generated no")
    assert not any(everything().values())
    assert any(everything("another").values())
    active = {project.project_id: project.is_active for project in projects.projects()}
    assert active == {PROJECT: False, "another": True}
    generate(SMALL, PROJECT)
    assert all(project.is_active for project in projects.projects())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--leads", "0"], "--leads 0 is out of range"),
        (["--scale", "1001"], "--scale 1001 is out of range"),
        (["--timezone", "Nowhere"], "There is no time zone 'Nowhere'"),
        (["--project", "a/b"], "'a/b' cannot be a project's id"),
        (["--as-of", "yesterday"], "--as-of 'yesterday' is no instant"),
        (["--remove", "--output", "x"], "--output and --remove do not go together"),
    ],
)
def test_wrong_words_are_refused(words: list[str], said: str) -> None:
    assert refused(*words).startswith(f"error: {said}")
    assert projects.projects() == []


def test_without_a_database_files_can_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STAGELINE_HOME", str(tmp_path / "nothing"))
    settings.cache_clear()
    said = run("--leads", "5", "--output", str(tmp_path / "out"))
    assert said.startswith("Wrote 5 leads, ")
    assert len(list((tmp_path / "out").glob("*.csv"))) == 6
