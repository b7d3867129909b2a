"""What `jobs/build.py` promises: one build at a time, judged by what it built, and stoppable."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
import pytest

from jobs.build import BuildError, build
from stageline.config import PROJECT_ROOT
from stageline.database import connect
from stageline.errors import StagelineError
from tests.kept_reading import kept_reading

PROJECT = """\
name: tiny
version: "1.0"
config-version: 2
profile: stageline
model-paths: [models]
test-paths: [tests]
"""

Tiny = Callable[..., Path]

pytestmark = pytest.mark.usefixtures("database")


@pytest.fixture(scope="module")
def reading(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What dbt read of the first project."""
    return tmp_path_factory.mktemp("reading") / "kept"


@pytest.fixture
def tiny(tmp_path: Path, reading: Path) -> Iterator[Tiny]:
    """Makes a dbt project of the given models and tests, with the real profile."""

    def make(models: dict[str, str], tests: dict[str, str] | None = None) -> Path:
        folder = tmp_path / "tiny"
        for kind, files in (("models", models), ("tests", tests or {})):
            (folder / kind).mkdir(parents=True, exist_ok=True)
            for name, text in files.items():
                (folder / kind / f"{name}.sql").write_text(text)
        (folder / "dbt_project.yml").write_text(PROJECT)
        (folder / "profiles.yml").write_text((PROJECT_ROOT / "profiles.yml").read_text())
        return folder

    with kept_reading(tmp_path / "tiny", reading):
        yield make


def rows(query: str) -> list[tuple[Any, ...]]:
    with connect("jobs") as session:
        return session.execute(query).fetchall()


def wait_for(condition: Callable[[], bool], seconds: float, what: str) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"{what} did not happen within {seconds} s"
        time.sleep(0.1)


def sleepers() -> int:
    with connect("owner") as session:
        found = session.execute(
            "select count(*) from pg_stat_activity"
            " where datname = current_database() and state = 'active'"
            " and query like '%pg_sleep(60)%' and pid <> pg_backend_pid()"
        ).fetchone()
        return int(found[0]) if found else 0


SLOW = {"slow": "{{ config(materialized='table') }} select 1 as id from pg_sleep(60)"}


def start_build(project: Path) -> subprocess.Popen[str]:
    code = (
        # As shells start what is to run in the background.
        "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN);"
        "import sys; from pathlib import Path; from jobs.build import build;"
        " from stageline.errors import StagelineError\n"
        "try:\n    build(project=Path(sys.argv[1]))\n"
        "except StagelineError as error:\n    print(error); sys.exit(error.exit_code)"
    )
    return subprocess.Popen(
        [sys.executable, "-c", code, str(project)],
        cwd=PROJECT_ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


def test_numbers_are_made_for_the_instant_that_is_given(tiny: Tiny) -> None:
    project = tiny({"one": "{{ config(materialized='table') }} select {{ as_of() }} as at"})
    (project / "macros" / "engine").mkdir(parents=True)
    for macro in ("as_of", "engine/types"):
        text = (PROJECT_ROOT / "macros" / f"{macro}.sql").read_text()
        (project / "macros" / f"{macro}.sql").write_text(text)
    given = datetime(2024, 3, 1, tzinfo=UTC)
    for as_of in (None, given, None):  # the second one of a project that dbt has read
        before = datetime.now(UTC)
        build(project=project, as_of=as_of)
        with connect("transformer") as session:
            ((found,),) = session.execute("select at from kpis.one").fetchall()
        assert found == as_of if as_of else found >= before


def test_good_build_is_counted_and_recorded(tiny: Tiny) -> None:
    project = tiny(
        {"one": "select 1 as id", "two": "select * from {{ ref('one') }}"},
        {"is_empty": "select * from {{ ref('one') }} where id > 1"},
    )

    report = build(project=project)

    assert report.counts() == {"model": 2, "test": 1}
    assert rows("select status, nodes_ok, nodes_failed, selector from ops.builds") == [
        ("success", 3, 0, None)
    ]
    assert rows("select invocation_id from ops.builds") == [(report.invocation_id,)]


def test_only_the_end_of_a_build_waits_for_the_disk(tiny: Tiny) -> None:
    query = "select current_setting('synchronous_commit') as waits"
    build(project=tiny({"one": "{{ config(materialized='table') }} " + query}))

    with connect("transformer") as session:
        assert session.execute("select waits from kpis.one").fetchall() == [("off",)]
    assert rows("show synchronous_commit") == [("on",)]


def test_failed_nodes_are_named_with_their_sql(tiny: Tiny) -> None:
    project = tiny(
        {
            "good": "select 1 as id",
            "bad": "{{ config(materialized='table') }} select 1 / (id - 1) as id"
            " from {{ ref('good') }}",
            "after_bad": "select * from {{ ref('bad') }}",
        },
        {
            "finds_two": "select 1 as x union all select 2",
            "only_warns": "{{ config(severity='warn') }} select * from {{ ref('good') }}",
        },
    )

    with pytest.raises(BuildError) as caught:
        build(project=project)

    report = caught.value.report
    failed = {node.name: node for node in report.failures}
    assert set(failed) == {"bad", "finds_two"}
    assert failed["bad"].message == "division by zero"
    assert failed["finds_two"].sentence().startswith("test finds_two: 2 rows do not pass (SQL: ")
    for node in failed.values():
        assert node.compiled is not None and node.compiled.exists()
    assert [node.name for node in report.skipped] == ["after_bad"]
    assert [node.name for node in report.warnings] == ["only_warns"]
    assert "2 of 5 nodes, 1 more were skipped" in str(caught.value)
    assert rows("select status, nodes_ok, nodes_failed from ops.builds") == [("failed", 2, 3)]


def test_a_unit_test_that_fails_is_named_and_keeps_its_model_as_it_was(tiny: Tiny) -> None:
    project = tiny({"ground": "select 1 as id", "above": "select id from {{ ref('ground') }}"})
    (project / "models" / "above.yml").write_text(
        "unit_tests: [{name: ids_are_doubled, model: above,"
        " given: [{input: ref('ground'), rows: [{id: 1}]}], expect: {rows: [{id: 2}]}}]"
    )

    with pytest.raises(BuildError) as caught:
        build(project=project)

    assert [node.name for node in caught.value.report.failures] == ["above.ids_are_doubled"]
    assert [node.name for node in caught.value.report.skipped] == ["above"]
    assert rows("select node_kind, rows from ops.node_runs where status = 'fail'") == [
        ("unit_test", None)
    ]


def test_a_value_in_a_database_error_is_hidden_and_noted_for_its_owner_alone(tiny: Tiny) -> None:
    """A failed cast repeats the row's value in dbt's log and results."""
    project = tiny(
        {
            "cast": "{{ config(materialized='table') }}"
            " select cast(name as integer) as id from (values ('Jane Roe')) as people (name)"
        }
    )

    with pytest.raises(BuildError) as caught:
        build(project=project)

    (node,) = caught.value.report.failures
    assert node.message == "invalid input syntax for type integer: (hidden)"
    for note in (project / "logs" / "dbt.log", project / "target" / "run_results.json"):
        assert "Jane Roe" in note.read_text()
        assert note.stat().st_mode & 0o077 == 0, note.name


def test_old_results_prove_nothing(tiny: Tiny) -> None:
    project = tiny({"one": "select 1 as id"})
    build(project=project)
    results = project / "target" / "run_results.json"
    old = json.loads(results.read_text())
    assert old["results"]
    (project / "models" / "lost.sql").write_text("select * from {{ ref('nowhere') }}")

    reason = r"could not start: Model 'model.tiny.lost' .* depends on a node named 'nowhere'"
    with pytest.raises(BuildError, match=reason) as caught:
        build(project=project)

    assert caught.value.report.nodes == []
    assert not results.exists()


def test_a_selection_of_nothing_is_no_success(tiny: Tiny) -> None:
    with pytest.raises(BuildError, match="matches no node"):
        build("no_such_model", project=tiny({"one": "select 1 as id"}))


def test_second_build_is_told_that_one_is_running(tiny: Tiny) -> None:
    project = tiny(SLOW)
    first = start_build(project)
    try:
        wait_for(lambda: sleepers() == 1, 30, "the query of the first build")
        with pytest.raises(StagelineError, match="Another build of target prod is running since"):
            build(project=project)
    finally:
        first.send_signal(signal.SIGTERM)
        # Sooner than dbt would be killed that does not cancel its queries.
        output, _ = first.communicate(timeout=12)

    assert first.returncode == 128 + signal.SIGTERM
    assert "The build was stopped" in output
    wait_for(lambda: sleepers() == 0, 5, "the end of the query")
    assert rows("select status from ops.builds") == [("failed",)]


def test_a_killed_runner_keeps_the_lock_until_its_dbt_ends(tiny: Tiny) -> None:
    project = tiny(SLOW)
    runner = start_build(project)
    wait_for(lambda: sleepers() == 1, 30, "the query of the build")
    children = psutil.Process(runner.pid).children(recursive=True)
    runner.kill()
    runner.wait(timeout=10)
    try:
        with pytest.raises(StagelineError, match="is running"):
            build(project=project)
    finally:
        for child in children:
            with suppress(psutil.NoSuchProcess):
                child.kill()

    # The killed dbt's query ends with it, and with both the lock is free.
    wait_for(lambda: sleepers() == 0, 10, "the end of the query")
    (project / "models" / "slow.sql").write_text("select 1 as id")
    assert build(project=project).counts() == {"model": 1}
