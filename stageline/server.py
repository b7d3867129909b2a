"""The embedded PostgreSQL: made, started, stopped, upgraded and found again below ``.stageline/``.

A real server on 127.0.0.1, with passwords, that keeps running between commands. Every operation
holds a file lock, so two commands at once do not meet. What decides whether a server is *this
folder's* is the data folder that the server itself reports, never a port or a process number alone.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]  # ships no types
import psycopg
from psycopg import sql

from stageline import postgres_install as install
from stageline.data_folder import create, reset_superuser_password, tidy, upgrade_if_old
from stageline.errors import StagelineError
from stageline.postmaster import (
    HOST,
    PORTS_TRIED,
    await_login,
    find_process,
    is_free,
    launch,
    lives,
    login,
    pid_file,
    replace_stale_pid,
    stop_process,
    who_answers,
)
from stageline.roles import WORKERS
from stageline.server_home import (
    DBNAME,
    OWNER,
    Site,
    credentials,
    data_folder,
    first_port,
    home,
    locked,
    log_file,
    make_home,
    read,
    refuse_if_copied,
    remember,
    remembered_port,
    superuser_password,
)

#: The rest of the package needs this module alone.
__all__ = [
    "OWNER",
    "Running",
    "find",
    "home",
    "is_free",
    "log_file",
    "make_home",
    "program",
    "remembered_port",
    "runs",
    "start",
    "stop",
    "superuser",
]


@dataclass(frozen=True)
class Running:
    """A server that accepts logins.

    Attributes:
        port: TCP port on 127.0.0.1.
        data: Its data folder, symbolic links resolved.
        started: This call started it; False where it ran already.
        created: This call made its data folder.
        notes: What a person should know: one line each (another port than before, an upgrade ...).
    """

    port: int
    data: Path
    started: bool
    created: bool
    notes: tuple[str, ...] = ()


def start(folder: Path, preferred_port: int, *, durable: bool = True) -> Running:
    """Makes sure that the server of ``folder`` runs; creates or upgrades its data where needed.

    Args:
        folder: The home of the server (``.stageline``).
        preferred_port: TCP port to take, if it is free and none was remembered from before.
        durable: False switches fsync off, and makes logins cheap: for tests only, a crash of the
            machine loses data.

    Raises:
        StagelineError: it cannot be created, upgraded or started; says where the log is.
    """
    make_home(folder)
    with locked(folder):
        data, notes = data_folder(folder)
        site = Site(folder, preferred_port, durable, data, install.account(data), notes)
        tidy(site)
        refuse_if_copied(site)
        if data.exists():
            upgrade_if_old(site)
        else:
            create(site)
        process = find_process(data)
        if process is not None and superuser_password(folder) is None:
            stop_process(data)  # nobody can log in any more: new passwords need a restart
            process = None
        started = process is None
        port = _start(site) if process is None else _wait_ready(site, process)
        _bootstrap(folder, port, fresh=started)
        remember(site, port, started=started)
    return Running(port, data, started, site.created, tuple(site.notes))


def stop(folder: Path) -> bool:
    """Stops the server of ``folder``: running statements are cancelled, nothing committed is lost.

    Returns:
        Whether one was running.

    Raises:
        StagelineError: it does not stop, or belongs to another account.
    """
    if not folder.is_dir():
        return False
    with locked(folder):
        data, _ = data_folder(folder, create=False)
        return stop_process(data)


def find(folder: Path) -> Running | None:
    """The server of ``folder``, if it runs and accepts logins; starts and changes nothing."""
    data = (folder / "postgres").resolve()
    if find_process(data) is None:
        return None
    entry = pid_file(data)
    password = superuser_password(folder)
    if entry is None or password is None or who_answers(entry.port, password) != str(data):
        return None
    return Running(entry.port, data, started=False, created=False)


def runs(folder: Path) -> bool:
    """Whether the server of ``folder`` has a process, which need not accept logins yet."""
    return find_process((folder / "postgres").resolve()) is not None


@contextmanager
def superuser(folder: Path, dbname: str = "postgres") -> Iterator[psycopg.Connection[Any]]:
    """A session of the superuser, for what no other role may do (databases, logins). Autocommits.

    Raises:
        StagelineError: the server does not run or the password does not fit.
    """
    port, password = remembered_port(folder), superuser_password(folder)
    if port is None or password is None:
        raise StagelineError(f"There is no database in {folder} yet. Run `stageline up`.")
    with login(port, password, dbname) as connection:
        yield connection


def program(name: str) -> Path:
    """A client of the wheel: ``psql``, ``pg_dump``, ``pg_restore``."""
    return install.packaged() / name


def _start(site: Site) -> int:
    if superuser_password(site.home) is None:
        credentials(site.home)
        replace_stale_pid(site.data)
        reset_superuser_password(site)
        site.notes.append("credentials.json was missing: all passwords were made anew.")
    first = first_port(site)
    port = first
    for _ in range(PORTS_TRIED):
        if port > 65535:
            port = 1024
        if is_free(port) and launch(site, port, install.VERSION):
            if port != first:
                site.notes.append(f"Port {first} is in use by another program: took {port}.")
            return port
        port += 1
    raise StagelineError(
        f"No free TCP port on {HOST} from {first} to {port}. Set STAGELINE_PORT to a free one."
    )


def _wait_ready(site: Site, process: psutil.Process) -> int:
    """The port of a server that already runs; starts it anew if it was just ending."""
    while lives(process):
        entry = pid_file(site.data)
        if entry is not None and entry.port and entry.status != "stopping":
            if await_login(site, process, entry.port):
                return entry.port
            break
        time.sleep(0.05)
    return _start(site)


#: Everybody may write large objects by default, the reader included.
_NO_LARGE_OBJECTS = """
revoke execute on function
    lo_creat(integer), lo_create(oid), lo_from_bytea(oid, bytea), lo_put(oid, bigint, bytea),
    lo_truncate(integer, integer), lo_truncate64(integer, bigint), lo_unlink(oid),
    lowrite(integer, bytea)
from public
"""


def _bootstrap(folder: Path, port: int, *, fresh: bool) -> None:
    """Database, owner and logins. At each start, and whenever one of them is missing."""
    passwords = credentials(folder)
    dbname = str(read(folder / "server.json").get("dbname", DBNAME))
    with login(port, passwords["postgres"]) as connection:
        logins = [OWNER, *WORKERS]
        row = connection.execute(
            """
            select
                (select count(*) from pg_roles where rolname = any(%s) and rolcanlogin),
                exists (select from pg_database where datname = %s)
            """,
            [logins, dbname],
        ).fetchone()
        assert row is not None  # noqa: S101 - the query always gives one row
        if row == (len(logins), True) and not fresh:
            return
        for name in logins:
            role, password = sql.Identifier(name), sql.Literal(passwords[name])
            if not connection.execute("select from pg_roles where rolname = %s", [name]).fetchall():
                connection.execute(sql.SQL("create role {}").format(role))
            extra = sql.SQL("createrole" if name == OWNER else "nocreaterole")
            connection.execute(
                sql.SQL("alter role {} login {} password {}").format(role, extra, password)
            )
        connection.execute(
            sql.SQL("grant {} to {} with admin true, inherit true, set true").format(
                sql.SQL(", ").join(map(sql.Identifier, WORKERS)), sql.Identifier(OWNER)
            )
        )
        if not row[1]:
            connection.execute(
                sql.SQL("create database {} owner {}").format(
                    sql.Identifier(dbname), sql.Identifier(OWNER)
                )
            )
        connection.execute("revoke connect on database postgres, template1 from public")
    with login(port, passwords["postgres"], dbname) as connection:
        connection.execute(_NO_LARGE_OBJECTS)
