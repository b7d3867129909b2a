"""A server of the user's: what `stageline up` does there, and what it says where it may not."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from stageline import config, dbt_environment, migrate, roles
from stageline.config import PROJECT_ROOT
from stageline.database import connect, connection
from stageline.errors import StagelineError
from tests.plain_postgres import PlainServer
from webhook_receiver import raw_tables
from webhook_receiver.delivery import Delivery, read

LOGIN = "crm team"  # a name and a password that have to be quoted everywhere
SECRET = "p@ss'/word%"


@dataclass(frozen=True)
class Place:
    """A database of the user's, and the login that Stageline is given."""

    server: PlainServer
    dbname: str

    def as_superuser(self, dbname: str | None = None) -> psycopg.Connection[object]:
        return self.server.session(dbname or self.dbname)

    def rows(self, query: str) -> list[tuple[object, ...]]:
        with self.as_superuser() as session:
            return session.execute(query).fetchall()


@pytest.fixture(scope="module")
def plain(short_folder: Path) -> Iterator[PlainServer]:
    folder = short_folder / "plain"
    folder.mkdir()
    server = PlainServer(folder / "data", 16)
    server.create()
    server.start()
    server.session().close()
    yield server
    server.kill()


@pytest.fixture
def place(plain: PlainServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    """A database without any of Stageline's roles on its server; the login may nothing yet."""
    dbname = "crm numbers"
    with plain.session() as session:
        session.execute(
            sql.SQL("create role {} login password {}").format(
                sql.Identifier(LOGIN), sql.Literal(SECRET)
            )
        )
        session.execute(sql.SQL("create database {}").format(sql.Identifier(dbname)))
    monkeypatch.setenv(
        "STAGELINE_DATABASE_URL",
        f"postgresql://crm%20team:p%40ss%27%2Fword%25@127.0.0.1:{plain.port}/crm%20numbers",
    )
    monkeypatch.setenv("STAGELINE_HOME", str(tmp_path / "never"))
    monkeypatch.setenv("STAGELINE_ENV_FILE", str(tmp_path / ".env"))
    config.settings.cache_clear()
    yield Place(plain, dbname)
    config.settings.cache_clear()
    assert not (tmp_path / "never").exists(), "no embedded server is made beside it"
    with plain.session() as session:
        session.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(dbname)))
        names = session.execute("select rolname from pg_roles where oid >= 16384").fetchall()
        for (name,) in names:  # also what it granted, which would keep others from being dropped
            session.execute(sql.SQL("drop owned by {}").format(sql.Identifier(name)))
        for (name,) in names:
            session.execute(sql.SQL("drop role {}").format(sql.Identifier(name)))


def up(*arguments: str) -> subprocess.CompletedProcess[str]:
    result = subprocess.run(
        [sys.executable, "-m", "stageline", "up", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert SECRET not in result.stdout + result.stderr
    assert "Traceback" not in result.stderr
    return result


def complaint(result: subprocess.CompletedProcess[str]) -> str:
    """The line that says what is wrong."""
    return next(line for line in result.stderr.splitlines() if line.startswith("error: "))


def traces(place: Place) -> list[tuple[object, ...]]:
    """Everything that Stageline could have left behind."""
    return place.rows(
        "select nspname from pg_namespace where nspname !~ '^pg_'"
        " and nspname not in ('information_schema', 'public')"
        " union all select rolname from pg_roles where rolname ~ '^stageline_'"
        " union all select datacl::text from pg_database where datname = current_database()"
    )


def works(place: Place) -> None:
    """The database is complete, and each role is who it should be with its own rights."""
    assert migrate.is_current()
    for role in ("receiver", "loader", "transformer", "jobs", "reader"):
        with connect(role) as session:
            row = session.execute("select session_user::text, current_user::text").fetchone()
        assert row == (LOGIN, f"stageline_{role}")
    with connect("loader") as session:
        session.execute("create table raw_files.made_by_dlt (a text)")
    with connect("transformer") as session:
        session.execute("create table kpis.numbers as select count(*) from raw_files.made_by_dlt")
        session.execute("grant select on kpis.numbers to stageline_reader")
    with connect("reader") as session:
        assert session.execute("table kpis.numbers").fetchone() == (0,)
        assert session.execute("show default_transaction_read_only").fetchone() == ("on",)
    with connect("reader") as session, pytest.raises(psycopg.errors.InsufficientPrivilege):
        session.execute("table raw_files.leads")
    variables = dbt_environment.variables()
    assert variables["STAGELINE_DBT_ROLE"] == "stageline_transformer"
    assert variables["STAGELINE_DBT_USER"] == LOGIN
    result = subprocess.run(
        [sys.executable, "-m", "stageline", "psql", "--", "-Atc", "select current_user"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.stdout == "stageline_reader\n", result.stderr
    assert place.rows(
        "select count(*) from pg_roles where rolname ~ '^stageline_' and rolcanlogin"
    ) == [(0,)]


def test_a_login_that_may_create_roles_and_owns_its_database(place: Place) -> None:
    with place.as_superuser() as session:
        session.execute('alter role "crm team" createrole')
        session.execute('alter database "crm numbers" owner to "crm team"')
    first = up()
    assert first.returncode == 0, first.stderr
    works(place)
    before = place.rows("select oid, rolname from pg_roles order by oid")
    second = up()
    assert (second.returncode, "Next" in second.stdout) == (0, False)
    assert place.rows("select oid, rolname from pg_roles order by oid") == before
    stop = subprocess.run(
        [sys.executable, "-m", "stageline", "down"], capture_output=True, text=True, check=False
    )
    assert stop.returncode == 1
    assert "does not stop a server of yours" in stop.stderr


def test_the_receiver_may_have_a_login_of_its_own(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = (PROJECT_ROOT / "deploy" / "postgres" / "receiver_login.sql").read_text()
    with place.as_superuser() as session:
        session.execute('alter role "crm team" superuser')
        for line in script.splitlines():
            if line.startswith("create "):
                session.execute(line.replace(":'password'", "'hook'").encode())
    assert up().returncode == 0
    own = f"postgresql://receiver:hook@127.0.0.1:{place.server.port}/crm%20numbers"
    monkeypatch.setenv("STAGELINE_DATABASE_URL", own)
    config.settings.cache_clear()
    with connect("receiver", autocommit=True) as session:
        session.execute("select source_system from settings.webhook_checks")
        delivery = Delivery("keycrm", "shop", datetime.now(UTC), (1,), {}, b"{}", "UTC")
        raw_tables.insert(session, [read(delivery)])
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            session.execute("select body from raw.delivery_bodies")
    with pytest.raises(StagelineError, match="permission denied to set role"):
        connect("jobs")
    assert place.rows(
        "select sender, convert_from(body, 'UTF8') from raw.deliveries"
        " inner join raw.delivery_bodies using (delivery_id)"
    ) == [("keycrm", "{}")]


def test_a_login_that_may_not_says_what_an_administrator_has_to_run(place: Place) -> None:
    before = traces(place)
    refused = up()
    assert refused.returncode == 1
    first = complaint(refused)
    assert "it may not create roles" in first
    assert "it may not create schemas" in first
    assert "Nothing was changed" in first
    assert traces(place) == before
    printed = up("--print-sql")
    assert printed.returncode == 0
    assert printed.stdout.strip() in refused.stderr
    for _ in range(2):  # an administrator may run it twice
        with place.as_superuser() as session:
            session.execute(printed.stdout)
    result = up()
    assert result.returncode == 0, result.stderr
    works(place)
    migrate.downgrade("base")
    migrate.upgrade()
    assert migrate.is_current()


def test_roles_of_somebody_else_are_not_taken(place: Place) -> None:
    with place.as_superuser() as session:
        session.execute('alter role "crm team" createrole')
        session.execute('alter database "crm numbers" owner to "crm team"')
        session.execute("create role stageline_reader nologin")
    before = traces(place)
    refused = up()
    assert refused.returncode == 1
    assert "stageline_reader belong to somebody else" in complaint(refused)
    assert traces(place) == before


def test_a_login_that_may_create_schemas_but_does_not_own_the_database(place: Place) -> None:
    with place.as_superuser() as session:
        session.execute('alter role "crm team" createrole')
        session.execute('grant create on database "crm numbers" to "crm team"')
    before = traces(place)
    refused = up()
    assert refused.returncode == 1
    assert "does not own the database" in complaint(refused)
    assert traces(place) == before


def test_a_server_that_is_too_old(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roles, "LEAST_VERSION", 17)  # the server of this test is a 16
    before = traces(place)
    with pytest.raises(StagelineError, match="is PostgreSQL 16; Stageline needs 17 or newer"):
        migrate.upgrade()
    assert traces(place) == before


def test_a_database_in_another_encoding(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as every database of a server that was made in the locale C."""
    with place.as_superuser() as session:
        session.execute("drop database if exists plain_ascii")
        session.execute(
            "create database plain_ascii encoding 'SQL_ASCII' lc_collate 'C' lc_ctype 'C'"
            " template template0"
        )
    url = os.environ["STAGELINE_DATABASE_URL"].replace("crm%20numbers", "plain_ascii")
    monkeypatch.setenv("STAGELINE_DATABASE_URL", url)
    refused = up()
    assert refused.returncode == 1
    assert "has the encoding SQL_ASCII; Stageline needs UTF8" in complaint(refused)
    assert len(complaint(refused).splitlines()) == 1


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("p%40ss%27%2Fword%25", "wrong"), "password authentication failed"),
        (("crm%20numbers", "nowhere"), 'database "nowhere" does not exist'),
        (("postgresql://", "mysql://"), "STAGELINE_DATABASE_URL cannot be read"),
    ],
)
@pytest.mark.usefixtures("place")
def test_a_wrong_url_is_one_line(
    monkeypatch: pytest.MonkeyPatch, change: tuple[str, str], said: str
) -> None:
    url = os.environ["STAGELINE_DATABASE_URL"].replace(*change)
    monkeypatch.setenv("STAGELINE_DATABASE_URL", url)
    result = up()
    assert result.returncode == 1
    assert said in complaint(result)
    assert len([line for line in result.stderr.splitlines() if not line.startswith("{")]) == 1


@pytest.mark.usefixtures("place")
def test_the_doctor_before_the_first_up() -> None:
    result = subprocess.run(
        [sys.executable, "-m", "stageline", "doctor", "--json"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    found = {finding["check"]: finding for finding in json.loads(result.stdout)}
    assert found["server"]["is_ok"]
    assert not found["roles"]["is_ok"]
    assert 'role "stageline_transformer" does not exist' in found["dbt"]["detail"]
    assert SECRET not in result.stdout + result.stderr


@pytest.mark.usefixtures("place")
def test_the_password_is_in_no_text_of_a_connection() -> None:
    assert SECRET not in repr(connection("reader"))
    assert SECRET not in str(config.settings())
