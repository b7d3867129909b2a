"""The commands around the database, as a person or a script calls them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest
from click.testing import CliRunner
from psycopg import sql

from loaders.registry import SOURCES
from stageline import config, dbt_environment, migrate, server
from stageline.cli import main
from stageline.database import Connection, connect
from tests.conftest import TEMPLATE, _clone


def stageline(*arguments: str, typed: str = "") -> subprocess.CompletedProcess[str]:
    """Runs the command as a child process."""
    result = subprocess.run(
        [sys.executable, "-m", "stageline", *arguments],
        input=typed,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "Traceback" not in result.stderr
    return result


@pytest.mark.parametrize("name", ["up", "down", "status", "psql", "doctor"])
def test_every_command_explains_itself_with_an_example(name: str) -> None:
    result = CliRunner().invoke(main, [name, "--help"])
    assert result.exit_code == 0
    assert f"Example:\n    stageline {name}" in result.output.replace("\n  ", "\n")


def test_the_command_starts_without_the_heavy_packages() -> None:
    script = (
        "import sys; from stageline.cli import main\n"
        "main(['--help'], standalone_mode=False)\n"
        "heavy = {'dbt', 'dlt', 'great_expectations', 'alembic', 'sqlalchemy', 'pyarrow'}\n"
        "sys.exit(', '.join(heavy & set(sys.modules)) or 0)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False
    )
    assert result.returncode == 0, result.stderr
    for name in ("up", "psql", "load", "build"):
        assert f"  {name} " in result.stdout


def test_an_unknown_command_is_one_line() -> None:
    result = stageline("upp")
    assert result.returncode == 2
    assert "No such command 'upp'" in result.stderr


def test_psql_gives_the_bare_answer_to_a_script(database: Connection) -> None:
    result = stageline("psql", "--", "-Atc", "select current_user, current_database()")
    assert (result.returncode, result.stdout) == (0, f"stageline_reader|{database.dbname}\n")
    result = stageline("psql", "--role", "owner", "--", "-At", typed="select current_user;")
    assert (result.returncode, result.stdout) == (0, "stageline_owner\n")


@pytest.mark.usefixtures("database")
def test_psql_keeps_its_exit_code() -> None:
    assert (
        stageline("psql", "--", "-v", "ON_ERROR_STOP=1", typed="select nonsense;").returncode == 3
    )


@pytest.mark.usefixtures("database")
def test_the_reader_of_psql_cannot_write() -> None:
    with connect("transformer", autocommit=True) as session:
        session.execute("create table kpis.numbers as select 1 as one")
        session.execute("grant select on kpis.numbers to stageline_reader")
    assert stageline("psql", "--", "-Atc", "select one from kpis.numbers").stdout == "1\n"
    refused = stageline("psql", "--", "-Atc", "insert into kpis.numbers values (2)")
    assert refused.returncode != 0
    assert "read-only transaction" in refused.stderr
    forced = stageline(
        "psql",
        "--",
        "-Atc",
        "set default_transaction_read_only = off",
        "-c",
        "delete from kpis.numbers",
    )
    assert forced.returncode != 0
    assert "permission denied" in forced.stderr
    with connect("reader") as session, pytest.raises(psycopg.errors.InsufficientPrivilege):
        session.execute("table raw_files.leads")


def test_up_on_a_database_that_is_well_changes_nothing(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # One that is not called as those are that `up` makes.
    cloned = _clone(request.getfixturevalue("server"), TEMPLATE, tmp_path, monkeypatch)
    with cloned as database:
        pid = (server.home() / "postgres" / "postmaster.pid").read_text()
        result = stageline("up")
        assert result.returncode == 0, result.stderr
        assert f"database {database.dbname}." in result.stdout
        assert (server.home() / "postgres" / "postmaster.pid").read_text() == pid
        with connect("owner") as session:
            names = session.execute("select datname from pg_database where datname = 'stageline'")
            assert names.fetchall() == []


@pytest.mark.usefixtures("database")
def test_up_mends_what_is_missing() -> None:
    with connect("owner", autocommit=True) as session:
        session.execute("drop schema ops cascade")
        session.execute("drop schema settings, raw cascade")
        session.execute(
            sql.SQL("drop schema {} cascade").format(
                sql.SQL(", ").join(
                    sql.Identifier(f"raw_{name}{suffix}")
                    for name in ("files", "demo", *SOURCES)
                    for suffix in ("", "_staging")
                )
            )
        )
        session.execute(
            "drop schema raw_sample, reference, staging, intermediate, kpis, snapshots cascade"
        )
    assert stageline("up").returncode == 0
    with connect("loader") as session:
        assert session.execute("select count(*) from raw_files.leads").fetchone() == (0,)


@pytest.mark.usefixtures("database")
def test_status_counts_what_was_loaded() -> None:
    empty = stageline("status")
    assert f"Migration  {migrate.head()} (the newest)" in empty.stdout
    assert "nothing yet" in empty.stdout
    with connect("loader") as session:
        session.execute(
            "insert into ops.loads"
            " (source, entity, project_id, rows_loaded, rows_rejected, status, finished_at) values"
            " ('file', 'leads', 'p', 1200, 3, 'success', '2026-01-02 03:04Z'),"
            " ('file', 'leads', 'p', 34, 0, 'success', '2026-01-03 03:04Z'),"
            " ('file', 'leads', 'p', 999, 0, 'failed', null)"
        )
    with connect("jobs") as session:
        session.execute(
            "insert into ops.builds (status, nodes_ok, nodes_failed) values ('success', 7, 0)"
        )
    found = json.loads(stageline("status", "--json").stdout)
    assert found["running"] is True
    assert found["migration"] == found["newest_migration"]
    (load,) = found["loaded"]
    assert (load["entity"], load["failed_loads"]) == ("leads", 1)
    assert (int(load["rows_loaded"]), int(load["rows_rejected"])) == (1234, 3)
    assert found["last_build"]["nodes_ok"] == 7
    text = stageline("status").stdout
    assert "file/p/leads" in text
    assert "Build      success, 7 ok, 0 failed, started" in text
    assert "1,234 rows, 3 rejected, 1 failed loads, last 2026-01-03 03:04 UTC" in text


@pytest.mark.parametrize(
    ("status", "counts", "said"),
    [
        ("running", (0, 0), "Build      running, started"),
        ("failed", (196, 0), "Build      not finished, 196 ok, 0 failed, started"),
        ("failed", (6, 1), "Build      failed, 6 ok, 1 failed, started"),
    ],
)
@pytest.mark.usefixtures("database")
def test_status_tells_how_the_last_build_went(
    status: str, counts: tuple[int, int], said: str
) -> None:
    with connect("jobs") as session:
        session.execute(
            "insert into ops.builds (status, nodes_ok, nodes_failed) values (%s, %s, %s)",
            (status, *counts),
        )
    assert said in stageline("status").stdout


@pytest.mark.usefixtures("database")
def test_ctrl_c_is_one_line() -> None:
    code = (
        "import stageline.migrate as migrate; from stageline.cli import main\n"
        "def interrupted(): raise KeyboardInterrupt\n"
        "migrate.current = interrupted\n"
        "main(['build'])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 130
    assert result.stderr == "\nerror: stopped. Nothing is left half done: run it again.\n"


@pytest.mark.usefixtures("database")
@pytest.mark.parametrize("is_wrapped", [False, True])
def test_a_folder_that_cannot_be_written_is_one_line(is_wrapped: bool) -> None:
    """Also where a library says it in words of its own."""
    code = (
        "import stageline.migrate as migrate; from stageline.cli import main\n"
        "def refused():\n"
        "    try: raise PermissionError(13, 'Permission denied', '/there/target')\n"
        f"    except OSError as error: raise {'ValueError(1) from ' if is_wrapped else ''}error\n"
        "migrate.current = refused\n"
        "main(['build'])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 1
    assert result.stderr.startswith("error: Cannot write /there/target: Permission denied. Mend")
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.usefixtures("database")
def test_a_full_disk_of_the_server_is_told_as_such() -> None:
    with connect("owner") as session:
        session.execute(
            "create function ops.no_room() returns trigger language plpgsql as $$ begin"
            " raise sqlstate '53100' using message = 'could not extend file'; end $$"
        )
        session.execute(
            "create trigger no_room before insert on ops.builds"
            " for each row execute function ops.no_room()"
        )
    result = CliRunner().invoke(main, ["build", "-s", "stg_leads"])
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1] == (
        "error: PostgreSQL's disk is full: make room on it (`stageline doctor` shows how much)."
        " Run it again; `stageline status` says how it is."
    )


def test_status_says_when_nothing_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STAGELINE_HOME", str(tmp_path / "none"))
    result = stageline("status")
    assert result.returncode == 3
    assert "Run `stageline up`" in result.stdout
    assert json.loads(stageline("status", "--json").stdout)["running"] is False
    assert not (tmp_path / "none").exists(), "looking makes nothing"


@pytest.mark.usefixtures("database")
def test_the_doctor_finds_what_was_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    dbt_environment.write(config.settings().env_file)
    config.settings().env_file.chmod(0o644)
    monkeypatch.setenv("STAGELINE_DBT_PORT", "1")
    with connect("owner", autocommit=True) as session:
        session.execute("update ops.alembic_version set version_num = '0002'")
    result = stageline("doctor", "--json")
    findings = {finding["check"]: finding for finding in json.loads(result.stdout)}
    problems = {name for name, finding in findings.items() if not finding["is_ok"]}
    assert problems == {"configuration file", "migrations", "variables for dbt"}
    assert result.returncode == 1
    assert "chmod 600" in findings["configuration file"]["remedy"]
    assert "stageline up" in findings["migrations"]["remedy"]
    assert "Unset STAGELINE_DBT_PORT" in findings["variables for dbt"]["remedy"]
    assert findings["dbt"]["detail"] == "connects"


def test_the_doctor_says_that_nothing_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STAGELINE_HOME", str(tmp_path / "none"))
    result = stageline("doctor")
    assert result.returncode == 1
    assert "problem  server: the embedded PostgreSQL does not run\n" in result.stdout
    assert "         -> Run `stageline up`.\n" in result.stdout
    assert result.stdout.endswith("1 problem.\n")


def test_a_setting_that_cannot_be_read_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STAGELINE_PORT", "many")
    result = stageline("up")
    assert result.returncode == 1
    assert result.stderr.startswith("error: STAGELINE_PORT cannot be read:")
    assert len(result.stderr.splitlines()) == 1


def test_the_environment_wins_over_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".env").write_text("STAGELINE_PORT=1111\nSTAGELINE_OUTPUT=/from/the/file\n")
    monkeypatch.setenv("STAGELINE_ENV_FILE", str(tmp_path / ".env"))
    monkeypatch.setenv("STAGELINE_PORT", "2222")
    config.settings.cache_clear()
    try:
        assert config.settings().port == 2222
        assert config.settings().output == Path("/from/the/file")
    finally:
        config.settings.cache_clear()
    assert "STAGELINE_DATABASE_URL" not in os.environ
