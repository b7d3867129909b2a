"""The server's process: started, recognised, waited for, stopped."""

import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]  # ships no types
import psycopg

from stageline import postgres_install as install
from stageline.errors import StagelineError
from stageline.server_home import Site, log_file, superuser_password

#: The server listens here and nowhere else.
HOST = "127.0.0.1"

#: How many ports are tried, from the preferred one on.
PORTS_TRIED = 200

#: How long to wait for an answer; longer while the server says that it is recovering from a crash.
_START_SECONDS = 60
_RECOVERY_SECONDS = 600
_STOP_SECONDS = 120

#: A log larger than this is set aside at the next start.
_LOG_BYTES = 10_000_000


@dataclass(frozen=True)
class _PidFile:
    """What ``postmaster.pid`` says; none of it is to be trusted before it is checked."""

    pid: int
    data: str
    port: int
    status: str


def is_free(port: int) -> bool:
    """Whether nobody listens on that TCP port of 127.0.0.1."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def _options(port: int, *, durable: bool) -> list[str]:
    """The server's configuration: given at each start, so it always is this version's.

    Modest in memory, meant for few sessions and large queries. The log holds no statements and no
    details of errors, because these carry data of customers.
    """
    values: dict[str, str | int | float] = {
        "listen_addresses": HOST,
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
        values |= {
            "fsync": "off",
            "full_page_writes": "off",
            "autovacuum_naptime": "10min",
            "max_wal_size": "256MB",
            # Every login computes them; tests log in ten thousand times.
            "scram_iterations": 1,
        }
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


@contextmanager
def launched(site: Site, version: int = install.VERSION) -> Iterator[int]:
    """The server of the data folder, for as long as the block runs, on any free port."""
    port = next(
        (p for p in range(site.preferred_port, site.preferred_port + PORTS_TRIED) if is_free(p)),
        None,
    )
    if port is None or not launch(site, port, version):
        raise StagelineError(f"No free TCP port on {HOST} for the upgrade. Set STAGELINE_PORT.")
    try:
        yield port
    finally:
        stop_process(site.data)


def launch(site: Site, port: int, version: int) -> bool:
    """Starts the server and waits until it accepts a login; False if the port was just taken.

    Raises:
        StagelineError: it ends or does not answer.
    """
    replace_stale_pid(site.data)
    log = log_file(site.home)
    if log.exists() and log.stat().st_size > _LOG_BYTES:
        log.replace(log.with_suffix(".log.1"))
    deadline = time.monotonic() + _START_SECONDS
    while True:
        with log.open("ab") as file:
            os.fchmod(file.fileno(), 0o600)  # an error may repeat a value of a row
            begin = file.tell()
            try:
                process = subprocess.Popen(
                    [
                        install.programs(site.who, version) / "postgres",
                        "-D",
                        site.data,
                        *_options(port, durable=site.durable),
                    ],
                    stdin=subprocess.DEVNULL,
                    stdout=file,
                    stderr=subprocess.STDOUT,
                    cwd="/",
                    env=install.environment(),
                    umask=0o077,
                    start_new_session=True,
                    **install.run_as(site.who),
                )
            except OSError as error:
                raise StagelineError(
                    f"Cannot run PostgreSQL as account `{site.who.name if site.who else 'yours'}`:"
                    f" {error.strerror}. Run `stageline` as an ordinary user."
                ) from None
        watched = psutil.Process(process.pid)
        if await_login(site, watched, port):
            process.returncode = (
                0  # it outlives this process: nothing to wait for, nothing to warn of
            )
            return True
        process.wait()
        words = last_words(log, begin)
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


def await_login(site: Site, process: psutil.Process, port: int) -> bool:
    """Waits until the server of this data folder answers on ``port``; False if its process ends."""
    password = superuser_password(site.home) or ""
    deadline = time.monotonic() + _START_SECONDS
    last_try = time.monotonic() + _RECOVERY_SECONDS
    while lives(process):
        answer = who_answers(port, password)
        if answer == str(site.data):
            return True
        if answer == "starting up":
            deadline = min(time.monotonic() + _START_SECONDS, last_try)
        # While ours is not ready it may be another server that answers: one that took the port
        # in the same moment, so that ours is about to end.
        entry = pid_file(site.data)
        if answer == "wrong password" and entry is not None and entry.status == "ready":
            raise StagelineError(
                f"PostgreSQL runs on port {port}, but does not take the password in"
                f" {site.home / 'credentials.json'}. Run `stageline down`, remove that file and run"
                " `stageline up`: all passwords are made anew."
            )
        if time.monotonic() > deadline:
            raise StagelineError(
                f"PostgreSQL (process {process.pid}) does not answer on {HOST}:{port} after"
                f" {_START_SECONDS} seconds. The log is {log_file(site.home)}."
            )
        time.sleep(0.03)
    return False


def who_answers(port: int, password: str) -> str | None:
    """The data folder of the server on ``port``, as it says itself; None if nobody answers."""
    try:
        with login(port, password) as connection:
            row = connection.execute("show data_directory").fetchone()
    except StagelineError as error:
        text = str(error)
        if "starting up" in text or "not yet accepting" in text:
            return "starting up"
        return "wrong password" if "password authentication failed" in text else None
    return str(Path(row[0]).resolve()) if row else None


def login(port: int, password: str, dbname: str = "postgres") -> psycopg.Connection[Any]:
    """A session of the superuser; autocommits.

    Raises:
        StagelineError: nobody answers, or the login is refused.
    """
    try:
        return psycopg.connect(
            host=HOST,
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


def pid_file(data: Path) -> _PidFile | None:
    """What the server of ``data`` has written down; None where there is nothing to be read.

    Raises:
        StagelineError: the data folder is another user's.
    """
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


def find_process(data: Path) -> psutil.Process | None:
    """The process that serves ``data``; None if there is none, whatever ``postmaster.pid`` says.

    The number in that file may be another process's by now (after a reboot or a crash), and the
    file itself may have been copied along with the folder: the command line decides.
    """
    entry = pid_file(data)
    if entry is None:
        return None
    try:
        process = psutil.Process(entry.pid)
        line = process.cmdline()
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return None
    except psutil.AccessDenied:
        return None
    if not lives(process) or not line or "postgres" not in Path(line[0]).name:
        return None
    return process if str(data) in line else None


def lives(process: psutil.Process) -> bool:
    """Whether the process is still at work: one that only waits to be buried is not."""
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def replace_stale_pid(data: Path) -> None:
    """Takes the number of a process that is not the server out of ``postmaster.pid``.

    PostgreSQL refuses to start while a process of that number lives. The file itself stays, for
    it also names the shared memory, by which PostgreSQL sees that sessions of a killed server
    still run.
    """
    entry = pid_file(data)
    path = data / "postmaster.pid"
    if entry is None or find_process(data) is not None:
        if entry is None:
            path.unlink(missing_ok=True)  # cut off while it was written
        return
    with suppress(ChildProcessError):
        os.waitpid(entry.pid, os.WNOHANG)  # our own child that was killed
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


def stop_process(data: Path) -> bool:
    """Stops the server of ``data`` and waits until it is gone; False where there is none.

    Raises:
        StagelineError: it belongs to another user, or does not stop.
    """
    process = find_process(data)
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
    while lives(process):
        if time.monotonic() > deadline:
            raise StagelineError(
                f"PostgreSQL (process {process.pid}) has not stopped after {_STOP_SECONDS} seconds."
            )
        time.sleep(0.02)
    with suppress(ChildProcessError):
        os.waitpid(process.pid, os.WNOHANG)  # our own child, where this process started it
    return True


def last_words(log: Path, begin: int) -> str:
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
