"""The embedded PostgreSQL: made, started, stopped, upgraded and found again below ``.stageline/``.

A real server on 127.0.0.1, with passwords, that keeps running between commands. Every operation
holds a file lock, so two commands at once do not meet. What decides whether a server is *this
folder's* is the data folder that the server itself reports, never a port or a process number alone.
"""

import fcntl
import json
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]  # ships no types
import psycopg
from psycopg import sql

from stageline import postgres_install as install
from stageline.config import settings
from stageline.errors import StagelineError
from stageline.postgres_install import Account
from stageline.roles import WORKERS

#: Name of the database, unless ``server.json`` says otherwise.
DBNAME = "stageline"
OWNER = "stageline_owner"

_HOST = "127.0.0.1"
_PORTS_TRIED = 200
_START_SECONDS = 60
_RECOVERY_SECONDS = 600
_STOP_SECONDS = 120
_LOCK_SECONDS = 300
_LOG_BYTES = 10_000_000


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


@dataclass
class _Work:
    """What one call carries around."""

    home: Path
    preferred_port: int
    durable: bool
    data: Path
    who: Account | None
    notes: list[str] = field(default_factory=list)
    created: bool = False


@dataclass(frozen=True)
class _PidFile:
    pid: int
    data: str
    port: int
    status: str


def home() -> Path:
    """The folder of the embedded server, absolute."""
    return settings().home.expanduser().absolute()


def log_file(folder: Path) -> Path:
    """Where the server below ``folder`` writes its log."""
    return folder / "postgres.log"


def start(folder: Path, preferred_port: int, *, durable: bool = True) -> Running:
    """Makes sure that the server of ``folder`` runs; creates or upgrades its data where needed.

    Args:
        folder: The home of the server (``.stageline``).
        preferred_port: TCP port to take, if it is free and none was remembered from before.
        durable: False switches fsync off: for tests only, a crash of the machine loses data.

    Raises:
        StagelineError: it cannot be created, upgraded or started; says where the log is.
    """
    _make_home(folder)
    with _locked(folder):
        data, notes = _data_folder(folder)
        work = _Work(folder, preferred_port, durable, data, install.account(data), notes)
        _tidy(work)
        _warn_if_moved(work)
        if data.exists():
            _upgrade_if_old(work)
        else:
            _create(work)
        process = _postmaster(data)
        if process is not None and _superuser_password(folder) is None:
            _stop(data)  # nobody can log in any more: new passwords need a restart
            process = None
        started = process is None
        port = _start(work) if process is None else _wait_ready(work, process)
        _bootstrap(folder, port, fresh=started)
        _remember(folder, port, data)
    return Running(port, data, started, work.created, tuple(work.notes))


def stop(folder: Path) -> bool:
    """Stops the server of ``folder``: running statements are cancelled, nothing committed is lost.

    Returns:
        Whether one was running.

    Raises:
        StagelineError: it does not stop, or belongs to another account.
    """
    if not folder.is_dir():
        return False
    with _locked(folder):
        data, _ = _data_folder(folder, create=False)
        return _stop(data)


def find(folder: Path) -> Running | None:
    """The server of ``folder``, if it runs and accepts logins; starts and changes nothing."""
    data = (folder / "postgres").resolve()
    if _postmaster(data) is None:
        return None
    entry = _pid_file(data)
    password = _superuser_password(folder)
    if entry is None or password is None or _who_answers(entry.port, password) != str(data):
        return None
    return Running(entry.port, data, started=False, created=False)


@contextmanager
def superuser(folder: Path, dbname: str = "postgres") -> Iterator[psycopg.Connection[Any]]:
    """A session of the superuser, for what no other role may do (databases, logins). Autocommits.

    Raises:
        StagelineError: the server does not run or the password does not fit.
    """
    port, password = (
        json.loads((folder / "server.json").read_text())["port"],
        _superuser_password(folder),
    )
    with _login(int(port), password or "", dbname) as connection:
        yield connection


def psql() -> Path:
    """The ``psql`` of the wheel."""
    return install.packaged() / "psql"


def remembered_port(folder: Path) -> int | None:
    """The port that the server of ``folder`` had last."""
    port = _read(folder / "server.json").get("port")
    return int(port) if port else None


def is_free(port: int) -> bool:
    """Whether nobody listens on that TCP port of 127.0.0.1."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((_HOST, port))
        except OSError:
            return False
    return True


# --- folders and files


def _make_home(folder: Path) -> None:
    try:
        # Root's server runs under another account, which has to pass through; no more than that.
        folder.mkdir(mode=0o711 if os.geteuid() == 0 else 0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise StagelineError(
            f"Cannot create {folder}: {error.strerror}."
            " Set STAGELINE_HOME to a folder that you may write to."
        ) from None


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Holds the home's lock; the lock ends with the process, so it can never be stale."""
    try:
        handle = (folder / "lock").open("a")
    except OSError as error:
        raise StagelineError(
            f"Cannot write to {folder} ({error.strerror}): it belongs to another user."
            " Run `stageline` as that user, or set STAGELINE_HOME to a folder of your own."
        ) from None
    with handle:
        deadline = time.monotonic() + _LOCK_SECONDS
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise StagelineError(
                        f"Another `stageline` command has held {folder / 'lock'} for"
                        f" {_LOCK_SECONDS} seconds. End it, then try again."
                    ) from None
                time.sleep(0.1)
        yield


def _data_folder(folder: Path, *, create: bool = True) -> tuple[Path, list[str]]:
    """Where the data is or shall be, and what to say about it."""
    link = folder / "postgres"
    if link.is_symlink() or link.exists():
        return link.resolve(), []
    who = install.account(link)
    if who is None or install.can_enter(folder, who) or not create:
        return folder.resolve() / "postgres", []
    refuge = install.REFUGE / sha256(str(folder.resolve()).encode()).hexdigest()[:16]
    try:
        install.REFUGE.mkdir(mode=0o755, parents=True, exist_ok=True)
        refuge.mkdir(mode=0o711, exist_ok=True)
        (refuge / "home").write_text(str(folder.resolve()))
        link.symlink_to(refuge / "postgres")
    except OSError as error:
        raise StagelineError(
            f"Account `{who.name}`, which has to run PostgreSQL for root, cannot enter {folder},"
            f" and {refuge} cannot be made ({error.strerror})."
            " Set STAGELINE_HOME to a folder that every account can enter."
        ) from None
    return refuge / "postgres", [
        f"The data is in {refuge / 'postgres'}: account `{who.name}`, which runs PostgreSQL for"
        f" root, cannot enter {folder}."
    ]


def _warn_if_moved(work: _Work) -> None:
    """Refuses to share data that lies elsewhere with a checkout that this one was copied from."""
    marker = work.data.parent / "home"
    if not (work.home / "postgres").is_symlink() or not marker.exists():
        return
    other = Path(marker.read_text())
    if other == work.home.resolve():
        return
    if (other / "postgres").is_symlink() and (other / "postgres").resolve() == work.data:
        raise StagelineError(
            f"{work.home} is a copy of {other} and points to the same data, {work.data}."
            f" Remove {work.home} to start with data of its own."
        )
    marker.write_text(str(work.home.resolve()))  # it was moved, not copied


def _write_private(path: Path, content: dict[str, Any]) -> None:
    """Replaces the file at once, readable by its owner alone (a crash leaves the old one)."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w") as file:
            json.dump(content, file, indent=2)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except PermissionError:
        raise StagelineError(
            f"Cannot read {path}: it belongs to another user. Run `stageline` as that user."
        ) from None
    except ValueError:
        raise StagelineError(
            f"{path} is damaged. Remove it and run `stageline up`: it is made anew."
        ) from None
    return content if isinstance(content, dict) else {}


def _superuser_password(folder: Path) -> str | None:
    password = _read(folder / "credentials.json").get("postgres")
    return str(password) if password else None


def _credentials(folder: Path) -> dict[str, str]:
    """All passwords; those that do not exist yet are made and kept first."""
    path = folder / "credentials.json"
    known = _read(path)
    complete = {
        name: str(known.get(name) or secrets.token_urlsafe(24))
        for name in ("postgres", OWNER, *WORKERS)
    }
    if complete != known:
        _write_private(path, complete)
    return complete


def _remember(folder: Path, port: int, data: Path) -> None:
    known = _read(folder / "server.json")
    now = {"dbname": DBNAME, **known, "port": port, "data": str(data)}
    if now != known:
        _write_private(folder / "server.json", now)


# --- making and upgrading data


def _run(
    work: _Work,
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
    program = install.programs(work.who, version) / str(arguments[0])
    log = log_file(work.home)
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
            **install.run_as(work.who),
        )
    if result.returncode != 0:
        raise StagelineError(f"{arguments[0]} failed: {_last_words(log, begin)} The log is {log}.")


def _last_words(log: Path, begin: int) -> str:
    """The line that says most of what was written to ``log`` after ``begin``."""
    with log.open("rb") as file:
        file.seek(begin)
        lines = [line.strip() for line in file.read().decode(errors="replace").splitlines()]
    lines = [line for line in lines if line]
    telling = [
        line
        for line in lines
        if any(
            word in line for word in ("FATAL:", "PANIC:", "error:", "No space left", "could not")
        )
    ]
    words = re.sub(r"^.*?(FATAL|PANIC): +", "", (telling or lines or ["it said nothing."])[-1])
    return words if words.endswith(".") else words + "."


def _folder_for(work: _Work, name: str) -> Path:
    """An empty folder beside the data, owned by the account that runs the server."""
    path = work.data.with_name(name)
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(mode=0o700)
    if work.who is not None:
        os.chown(path, work.who.uid, work.who.gid)
    return path


def _initdb(work: _Work, target: Path, *more: str) -> None:
    password_file = target.with_name(f"{target.name}.password")
    descriptor = os.open(password_file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(_credentials(work.home)["postgres"])
        if work.who is not None:
            os.chown(password_file, work.who.uid, work.who.gid)
        _run(
            work,
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
                *([] if work.durable else ["--no-sync"]),
                *more,
            ],
        )
    except StagelineError:
        shutil.rmtree(target, ignore_errors=True)
        raise
    finally:
        password_file.unlink(missing_ok=True)


def _create(work: _Work) -> None:
    """Makes the data folder beside its place and moves it there whole."""
    try:
        target = _folder_for(work, "postgres.new")
        _initdb(work, target, "--data-checksums")
        target.rename(work.data)
    except OSError as error:
        raise StagelineError(f"Cannot create {work.data}: {error.strerror}.") from None
    work.created = True


def _tidy(work: _Work) -> None:
    """Undoes what a crash in the middle of an upgrade has left."""
    if work.data.exists():
        return
    for version in install.versions():
        aside = work.data.with_name(f"postgres-{version}")
        if (aside / "PG_VERSION").exists():
            aside.rename(work.data)
            work.who = install.account(work.data)
            return


def _upgrade_if_old(work: _Work) -> None:
    try:
        version = int((work.data / "PG_VERSION").read_text())
    except FileNotFoundError:
        raise StagelineError(
            f"{work.data} exists and holds no PostgreSQL data."
            " Move it away, then run `stageline up`."
        ) from None
    except (OSError, ValueError) as error:
        raise StagelineError(f"Cannot read {work.data / 'PG_VERSION'}: {error}.") from None
    if version == install.VERSION:
        return
    if version not in install.versions():
        raise StagelineError(
            f"{work.data} was made by PostgreSQL {version}; this Stageline runs"
            f" {install.VERSION} and can upgrade"
            f" {', '.join(str(v) for v in install.versions() if v < install.VERSION)}."
            " Use the Stageline that made it, or move the folder away to start anew."
        )
    _upgrade(work, version)


def _upgrade(work: _Work, version: int) -> None:
    """Brings data of an older PostgreSQL to the present one; the old stays until that worked.

    ``pg_upgrade`` copies; it talks to both servers over a socket in a short temporary folder,
    because the path of a socket has a length limit.
    """
    password = _superuser_password(work.home)
    if password is None:
        _credentials(work.home)
        _reset_superuser_password(work, version)
        password = _credentials(work.home)["postgres"]
    _stop(work.data)
    with _launched(work, version):  # a server that crashed has to recover under its own version
        pass
    checksums = _checksums(work, version)
    new = _folder_for(work, "postgres.new")
    _initdb(work, new, "--data-checksums" if checksums else "--no-data-checksums")
    with tempfile.TemporaryDirectory(prefix="stageline-", dir="/tmp") as scratch:
        if work.who is not None:
            os.chown(scratch, work.who.uid, work.who.gid)
        _run(
            work,
            [
                "pg_upgrade",
                f"--old-bindir={install.programs(work.who, version)}",
                f"--new-bindir={install.programs(work.who)}",
                f"--old-datadir={work.data}",
                f"--new-datadir={new}",
                f"--socketdir={scratch}",
                "--username=postgres",
                *([] if work.durable else ["--no-sync"]),
            ],
            cwd=scratch,
            variables={"PGPASSWORD": password},
        )
    old = work.data.with_name(f"postgres-{version}")
    work.data.rename(old)
    new.rename(work.data)
    try:
        with _launched(work) as port, _login(port, password) as connection:
            names = connection.execute("select datname from pg_database where datallowconn")
            for (name,) in names.fetchall():
                with _login(port, password, name) as session:
                    session.execute("analyze")
    except BaseException:
        shutil.rmtree(work.data)
        old.rename(work.data)
        raise
    shutil.rmtree(old)
    work.notes.append(f"The data was upgraded from PostgreSQL {version} to {install.VERSION}.")


def _checksums(work: _Work, version: int) -> bool:
    result = subprocess.run(
        [install.programs(work.who, version) / "pg_controldata", work.data],
        capture_output=True,
        text=True,
        env=install.environment(),
        cwd="/",
        check=True,
        **install.run_as(work.who),
    )
    line = next(x for x in result.stdout.splitlines() if x.startswith("Data page checksum version"))
    return str(line).split(":")[1].strip() != "0"


def _reset_superuser_password(work: _Work, version: int = install.VERSION) -> None:
    """Gives the superuser a new password without logging in: the old one was lost."""
    password = sql.Literal(_credentials(work.home)["postgres"])
    statement = sql.SQL("alter role postgres password {}\n").format(password).as_string(None)
    _run(
        work,
        [
            "postgres",
            "--single",
            "-D",
            work.data,
            "-c",
            "log_min_error_statement=panic",
            "postgres",
        ],
        version=version,
        typed=statement,
    )


# --- starting and stopping


def _options(port: int, *, durable: bool) -> list[str]:
    """The server's configuration: given at each start, so it always is this version's.

    Modest in memory, meant for few sessions and large queries. The log holds no statements and no
    details of errors, because these carry data of customers.
    """
    values: dict[str, str | int | float] = {
        "listen_addresses": _HOST,
        "port": port,
        "unix_socket_directories": "",
        "timezone": "UTC",
        "log_timezone": "UTC",
        "max_connections": 60,
        "shared_buffers": "256MB",
        "effective_cache_size": "1GB",
        "work_mem": "32MB",
        "maintenance_work_mem": "128MB",
        "random_page_cost": 1.1,
        "max_wal_size": "2GB",
        "checkpoint_timeout": "15min",
        "max_locks_per_transaction": 256,
        "jit": "off",
        "synchronous_commit": "on",
        "log_min_error_statement": "panic",
        "log_error_verbosity": "terse",
        "log_line_prefix": "%m [%p] %q%u@%d ",
    }
    if not durable:
        values |= {"fsync": "off", "full_page_writes": "off", "autovacuum_naptime": "10min"}
    if _shared_memory_is_small():
        values["dynamic_shared_memory_type"] = "mmap"
    return [part for name, value in values.items() for part in ("-c", f"{name}={value}")]


def _shared_memory_is_small() -> bool:
    """Containers often give /dev/shm 64 MB, on which parallel queries fail."""
    try:
        status = os.statvfs("/dev/shm")  # noqa: S108 - the kernel's shared memory, not a file of ours
    except OSError:
        return False
    return status.f_blocks * status.f_frsize < 512 * 1024 * 1024


def _start(work: _Work) -> int:
    if _superuser_password(work.home) is None:
        _credentials(work.home)
        _replace_stale_pid(work.data)
        _reset_superuser_password(work)
        work.notes.append("credentials.json was missing: all passwords were made anew.")
    first = remembered_port(work.home) or work.preferred_port
    port = first
    for _ in range(_PORTS_TRIED):
        if port > 65535:
            port = 1024
        if is_free(port) and _launch(work, port, install.VERSION):
            if port != first:
                work.notes.append(f"Port {first} is in use by another program: took {port}.")
            return port
        port += 1
    raise StagelineError(
        f"No free TCP port on {_HOST} from {first} to {port}. Set STAGELINE_PORT to a free one."
    )


@contextmanager
def _launched(work: _Work, version: int = install.VERSION) -> Iterator[int]:
    """The server of the data folder, for as long as the block runs, on any free port."""
    port = next(
        (p for p in range(work.preferred_port, work.preferred_port + _PORTS_TRIED) if is_free(p)),
        None,
    )
    if port is None or not _launch(work, port, version):
        raise StagelineError(f"No free TCP port on {_HOST} for the upgrade. Set STAGELINE_PORT.")
    try:
        yield port
    finally:
        _stop(work.data)


def _launch(work: _Work, port: int, version: int) -> bool:
    """Starts the server and waits until it accepts a login; False if the port was just taken.

    Raises:
        StagelineError: it ends or does not answer.
    """
    _replace_stale_pid(work.data)
    log = log_file(work.home)
    if log.exists() and log.stat().st_size > _LOG_BYTES:
        log.replace(log.with_suffix(".log.1"))
    deadline = time.monotonic() + _START_SECONDS
    while True:
        with log.open("ab") as file:
            begin = file.tell()
            try:
                process = subprocess.Popen(
                    [
                        install.programs(work.who, version) / "postgres",
                        "-D",
                        work.data,
                        *_options(port, durable=work.durable),
                    ],
                    stdin=subprocess.DEVNULL,
                    stdout=file,
                    stderr=subprocess.STDOUT,
                    cwd="/",
                    env=install.environment(),
                    umask=0o077,
                    start_new_session=True,
                    **install.run_as(work.who),
                )
            except OSError as error:
                raise StagelineError(
                    f"Cannot run PostgreSQL as account `{work.who.name if work.who else 'yours'}`:"
                    f" {error.strerror}. Run `stageline` as an ordinary user."
                ) from None
        watched = psutil.Process(process.pid)
        if _await_login(work, watched, port):
            process.returncode = (
                0  # it outlives this process: nothing to wait for, nothing to warn of
            )
            return True
        process.wait()
        words = _last_words(log, begin)
        with log.open("rb") as file:
            file.seek(begin)
            said = file.read()
        if b"could not create any TCP/IP sockets" in said or b"could not bind" in said:
            return False
        # Sessions of a server that was killed hold its shared memory until they notice.
        if b"pre-existing shared memory block" in said and time.monotonic() < deadline:
            time.sleep(0.2)
            continue
        raise StagelineError(f"PostgreSQL did not start: {words} The log is {log}.")


def _await_login(work: _Work, process: psutil.Process, port: int) -> bool:
    """Waits until the server of this data folder answers on ``port``; False if its process ends."""
    password = _superuser_password(work.home) or ""
    deadline = time.monotonic() + _START_SECONDS
    last_try = time.monotonic() + _RECOVERY_SECONDS
    while _lives(process):
        answer = _who_answers(port, password)
        if answer == str(work.data):
            return True
        if answer == "starting up":
            deadline = min(time.monotonic() + _START_SECONDS, last_try)
        if answer == "wrong password":
            raise StagelineError(
                f"PostgreSQL runs on port {port}, but does not take the password in"
                f" {work.home / 'credentials.json'}. Run `stageline down`, remove that file and run"
                " `stageline up`: all passwords are made anew."
            )
        if time.monotonic() > deadline:
            raise StagelineError(
                f"PostgreSQL (process {process.pid}) does not answer on {_HOST}:{port} after"
                f" {_START_SECONDS} seconds. The log is {log_file(work.home)}."
            )
        time.sleep(0.03)
    return False


def _wait_ready(work: _Work, process: psutil.Process) -> int:
    """The port of a server that already runs; starts it anew if it was just ending."""
    while _lives(process):
        entry = _pid_file(work.data)
        if entry is not None and entry.port and entry.status != "stopping":
            if _await_login(work, process, entry.port):
                return entry.port
            break
        time.sleep(0.05)
    return _start(work)


def _who_answers(port: int, password: str) -> str | None:
    """The data folder of the server on ``port``, as it says itself; None if nobody answers."""
    try:
        with _login(port, password) as connection:
            row = connection.execute("show data_directory").fetchone()
    except StagelineError as error:
        text = str(error)
        if "starting up" in text or "not yet accepting" in text:
            return "starting up"
        return "wrong password" if "password authentication failed" in text else None
    return str(Path(row[0]).resolve()) if row else None


def _login(port: int, password: str, dbname: str = "postgres") -> psycopg.Connection[Any]:
    try:
        return psycopg.connect(
            host=_HOST,
            port=port,
            dbname=dbname,
            user="postgres",
            password=password,
            connect_timeout=5,
            autocommit=True,
            options="-c log_min_error_statement=panic",
        )
    except psycopg.OperationalError as error:
        raise StagelineError(f"The embedded PostgreSQL refuses a login: {error}") from None


def _pid_file(data: Path) -> _PidFile | None:
    try:
        lines = (data / "postmaster.pid").read_text().splitlines()
        return _PidFile(
            int(lines[0]),
            lines[1],
            int(lines[3]) if len(lines) > 3 and lines[3].strip() else 0,
            lines[7].strip() if len(lines) > 7 else "",
        )
    except (FileNotFoundError, NotADirectoryError, IndexError, ValueError):
        return None
    except PermissionError:
        raise StagelineError(
            f"{data} belongs to another user. Run `stageline` as that user,"
            " or set STAGELINE_HOME to a folder of your own."
        ) from None


def _postmaster(data: Path) -> psutil.Process | None:
    """The process that serves ``data``; None if there is none, whatever ``postmaster.pid`` says.

    The number in that file may be another process's by now (after a reboot or a crash), and the
    file itself may have been copied along with the folder: the command line decides.
    """
    entry = _pid_file(data)
    if entry is None:
        return None
    try:
        process = psutil.Process(entry.pid)
        line = process.cmdline()
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return None
    except psutil.AccessDenied:
        return None
    if not _lives(process) or not line or "postgres" not in Path(line[0]).name:
        return None
    return process if str(data) in line else None


def _lives(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _replace_stale_pid(data: Path) -> None:
    """Takes the number of a process that is not the server out of ``postmaster.pid``.

    PostgreSQL refuses to start while a process of that number lives. The file itself stays, for
    it also names the shared memory, by which PostgreSQL sees that sessions of a killed server
    still run.
    """
    entry = _pid_file(data)
    path = data / "postmaster.pid"
    if entry is None or _postmaster(data) is not None:
        if entry is None:
            path.unlink(missing_ok=True)  # cut off while it was written
        return
    if not psutil.pid_exists(entry.pid):
        return
    ended = subprocess.Popen(["/bin/sh", "-c", "exit"])
    ended.wait()
    lines = path.read_text().splitlines()
    status = path.stat()
    partial = path.with_name("postmaster.pid.new")
    partial.write_text("\n".join([str(ended.pid), *lines[1:]]) + "\n")
    partial.chmod(0o600)
    if os.geteuid() == 0:
        os.chown(partial, status.st_uid, status.st_gid)
    partial.replace(path)


def _stop(data: Path) -> bool:
    process = _postmaster(data)
    if process is None:
        return False
    try:
        process.send_signal(signal.SIGINT)  # "fast": ends sessions, writes a checkpoint
    except psutil.NoSuchProcess:
        return True
    except psutil.AccessDenied:
        raise StagelineError(
            f"The server of {data} (process {process.pid}) belongs to another user:"
            " run `stageline down` as that user."
        ) from None
    deadline = time.monotonic() + _STOP_SECONDS
    while _lives(process):
        if time.monotonic() > deadline:
            raise StagelineError(
                f"PostgreSQL (process {process.pid}) has not stopped after {_STOP_SECONDS} seconds."
            )
        time.sleep(0.02)
    with suppress(ChildProcessError):
        os.waitpid(process.pid, os.WNOHANG)  # our own child, where this process started it
    return True


# --- logins


def _bootstrap(folder: Path, port: int, *, fresh: bool) -> None:
    """Database, owner and logins. At each start, and whenever one of them is missing."""
    passwords = _credentials(folder)
    dbname = str(_read(folder / "server.json").get("dbname", DBNAME))
    with _login(port, passwords["postgres"]) as connection:
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
