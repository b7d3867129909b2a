"""The data folder of the embedded server: made, and upgraded from an older PostgreSQL."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from psycopg import sql

from stageline import postgres_install as install
from stageline.errors import StagelineError
from stageline.postmaster import last_words, launched, login, stop_process
from stageline.server_home import Site, credentials, log_file, superuser_password


def _run(
    site: Site,
    arguments: list[str | Path],
    *,
    version: int = install.VERSION,
    cwd: str = "/",
    variables: dict[str, str] | None = None,
    typed: str = "",
) -> None:
    """Runs one of PostgreSQL's programs; its output goes to the log.

    Raises:
        StagelineError: it fails: the last telling line of its output, and where the rest is.
    """
    program = install.programs(site.who, version) / str(arguments[0])
    log = log_file(site.home)
    with log.open("ab") as file:
        begin = file.tell()
        result = subprocess.run(
            [program, *arguments[1:]],
            input=typed.encode(),
            stdout=file,
            stderr=subprocess.STDOUT,
            env=install.environment() | (variables or {}),
            cwd=cwd,
            check=False,
            **install.run_as(site.who),
        )
    if result.returncode != 0:
        raise StagelineError(f"{arguments[0]} failed: {last_words(log, begin)} The log is {log}.")


def _new_folder(site: Site) -> Path:
    """An empty folder beside the data, owned by the account that runs the server.

    Its name is new each time, because the ``initdb`` of a killed command may still be writing to
    its own.
    """
    path = Path(tempfile.mkdtemp(prefix="postgres.new.", dir=site.data.parent))
    if site.who is not None:
        os.chown(path, site.who.uid, site.who.gid)
    return path


def _initdb(site: Site, target: Path, *more: str) -> None:
    password_file = target.with_name(f"{target.name}.password")
    descriptor = os.open(password_file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(credentials(site.home)["postgres"])
        if site.who is not None:
            os.chown(password_file, site.who.uid, site.who.gid)
        _run(
            site,
            [
                "initdb",
                f"--pgdata={target}",
                "--username=postgres",
                f"--pwfile={password_file}",
                "--auth=scram-sha-256",
                "--encoding=UTF8",
                # Sorts by code point, knows the upper and lower case of all letters, and does
                # not depend on the locales of the machine: the same order everywhere.
                "--locale=C",
                "--locale-provider=builtin",
                "--builtin-locale=C.UTF-8",
                *([] if site.durable else ["--no-sync"]),
                *more,
            ],
        )
    except StagelineError:
        shutil.rmtree(target, ignore_errors=True)
        raise
    finally:
        password_file.unlink(missing_ok=True)


def create(site: Site) -> None:
    """Makes the data folder beside its place and moves it there whole."""
    try:
        target = _new_folder(site)
        _initdb(site, target, "--data-checksums")
        target.rename(site.data)
    except OSError as error:
        raise StagelineError(f"Cannot create {site.data}: {error.strerror}.") from None
    site.created = True


def tidy(site: Site) -> None:
    """Removes what a command that was killed has left, and undoes half an upgrade."""
    for left in site.data.parent.glob("postgres.new.*"):
        if left.is_dir():
            shutil.rmtree(left, ignore_errors=True)
        else:
            left.unlink(missing_ok=True)
    if site.data.exists():
        return
    for version in install.versions():
        aside = site.data.with_name(f"postgres-{version}")
        if (aside / "PG_VERSION").exists():
            aside.rename(site.data)
            site.who = install.account(site.data)
            return


def upgrade_if_old(site: Site) -> None:
    try:
        version = int((site.data / "PG_VERSION").read_text())
    except FileNotFoundError:
        raise StagelineError(
            f"{site.data} exists and holds no PostgreSQL data."
            " Move it away, then run `stageline up`."
        ) from None
    except (OSError, ValueError) as error:
        raise StagelineError(f"Cannot read {site.data / 'PG_VERSION'}: {error}.") from None
    if version == install.VERSION:
        return
    if version not in install.versions():
        raise StagelineError(
            f"{site.data} was made by PostgreSQL {version}; this Stageline runs"
            f" {install.VERSION} and can upgrade"
            f" {', '.join(str(v) for v in install.versions() if v < install.VERSION)}."
            " Use the Stageline that made it, or move the folder away to start anew."
        )
    _upgrade(site, version)


def _upgrade(site: Site, version: int) -> None:
    """Brings data of an older PostgreSQL to the present one; the old stays until that worked.

    ``pg_upgrade`` copies; it talks to both servers over a socket in a short temporary folder,
    because the path of a socket has a length limit.
    """
    password = superuser_password(site.home)
    if password is None:
        credentials(site.home)
        reset_superuser_password(site, version)
        password = credentials(site.home)["postgres"]
    stop_process(site.data)
    with launched(site, version):  # a server that crashed has to recover under its own version
        pass
    checksums = _checksums(site, version)
    new = _new_folder(site)
    _initdb(site, new, "--data-checksums" if checksums else "--no-data-checksums")
    with tempfile.TemporaryDirectory(prefix="stageline-", dir="/tmp") as scratch:
        if site.who is not None:
            os.chown(scratch, site.who.uid, site.who.gid)
        _run(
            site,
            [
                "pg_upgrade",
                f"--old-bindir={install.programs(site.who, version)}",
                f"--new-bindir={install.programs(site.who)}",
                f"--old-datadir={site.data}",
                f"--new-datadir={new}",
                f"--socketdir={scratch}",
                "--username=postgres",
                *([] if site.durable else ["--no-sync"]),
            ],
            cwd=scratch,
            variables={"PGPASSWORD": password},
        )
    old = site.data.with_name(f"postgres-{version}")
    site.data.rename(old)
    new.rename(site.data)
    try:
        with launched(site) as port, login(port, password) as connection:
            names = connection.execute("select datname from pg_database where datallowconn")
            for (name,) in names.fetchall():
                with login(port, password, name) as session:
                    session.execute("analyze")
    except BaseException:
        shutil.rmtree(site.data)
        old.rename(site.data)
        raise
    shutil.rmtree(old)
    site.notes.append(f"The data was upgraded from PostgreSQL {version} to {install.VERSION}.")


def _checksums(site: Site, version: int) -> bool:
    result = subprocess.run(
        [install.programs(site.who, version) / "pg_controldata", site.data],
        capture_output=True,
        text=True,
        env=install.environment(),
        cwd="/",
        check=True,
        **install.run_as(site.who),
    )
    line = next(x for x in result.stdout.splitlines() if x.startswith("Data page checksum version"))
    return str(line).split(":")[1].strip() != "0"


def reset_superuser_password(site: Site, version: int = install.VERSION) -> None:
    """Gives the superuser a new password without logging in: the old one was lost."""
    password = sql.Literal(credentials(site.home)["postgres"])
    statement = sql.SQL("alter role postgres password {}\n").format(password).as_string(None)
    _run(
        site,
        [
            "postgres",
            "--single",
            "-D",
            site.data,
            "-c",
            "log_min_error_statement=panic",
            "postgres",
        ],
        version=version,
        typed=statement,
    )
