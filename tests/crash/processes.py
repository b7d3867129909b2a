"""The processes that are killed: each can be started, killed as a whole, and stopped for good."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import requests

from stageline import server
from stageline.config import PROJECT_ROOT
from stageline.postmaster import find_process, lives
from tests.receivers import Receiver

#: Seconds that a start, or an end, may take.
_PATIENCE = 60.0


def kill(processes: Sequence[psutil.Process]) -> None:
    """Kills them all (kill -9), and returns when they are gone."""
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    for process in processes:
        _await_end(process)


def kill_family(parent: psutil.Process) -> None:
    """Kills a process with all that it has started, none of which outlives the others for long."""
    with suppress(psutil.NoSuchProcess):
        parent.suspend()  # it starts no other one while they are counted
        kill([*parent.children(recursive=True), parent])


def dbt_of(builder: psutil.Process) -> list[psutil.Process]:
    """The dbt that a process has started: forked for it, it leads a session of its own."""
    found = []
    with suppress(psutil.NoSuchProcess, ProcessLookupError):
        for process in builder.children(recursive=True):
            is_forked = any("multiprocessing.forkserver" in part for part in _line(process))
            if is_forked and os.getsid(process.pid) == process.pid:
                found.append(process)
    return found


def kill_all_with(variable: str, value: str) -> None:
    """Kills every process that was started with that variable in its environment."""
    for process in all_with(variable, value):
        kill_family(process)


def all_with(variable: str, value: str) -> list[psutil.Process]:
    """Every process that was started with that variable in its environment, this one left out."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):  # it is gone, or not ours
            if process.pid != os.getpid() and process.environ().get(variable) == value:
                found.append(process)
    return found


def _await_end(process: psutil.Process) -> None:
    deadline = time.monotonic() + _PATIENCE
    while lives(process):
        if time.monotonic() > deadline:
            raise AssertionError(f"{process} was killed and goes on")
        time.sleep(0.005)
    with suppress(ChildProcessError):
        os.waitpid(process.pid, os.WNOHANG)  # one of ours


class Postgres:
    """An embedded server of its own, with fsync.

    Args:
        home: Its home; made by `start`.
        port: Its TCP port, if that is free.
    """

    def __init__(self, home: Path, port: int) -> None:
        self._home, self._port = home, port
        self._data = (home / "postgres").resolve()

    def start(self) -> None:
        """Starts it, unless it runs, and returns when it takes logins."""
        server.start(self._home, self._port)

    def stop(self) -> None:
        """Stops it in order, so that it gives its shared memory back, and leaves nothing of it."""
        try:
            server.stop(self._home)
        finally:
            for process in psutil.process_iter():
                if str(self._data) in _line(process):
                    kill_family(process)

    def kill(self) -> None:
        """Kills the postmaster and all others at once."""
        kill_family(self._postmaster())

    def kill_postmaster(self) -> None:
        """Kills the postmaster alone; the others notice, and end when they do."""
        kill([self._postmaster()])

    def kill_session(self, role: str = "receiver") -> bool:
        """Kills one process that serves a client; the server restarts itself for that.

        Args:
            role: Whose session it is.

        Returns:
            Whether there was one.
        """
        sessions = [
            process
            for process in self._postmaster().children()
            if any(f"stageline_{role}" in part for part in _line(process))
        ]
        kill(sessions[:1])
        return bool(sessions)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Stands still, all of it, while the block runs: connections stay, nothing answers."""
        postmaster = self._postmaster()
        postmaster.suspend()
        held = [postmaster, *postmaster.children(recursive=True)]
        try:
            for process in held[1:]:
                with suppress(psutil.NoSuchProcess):
                    process.suspend()
            yield
        finally:
            for process in held:
                with suppress(psutil.NoSuchProcess):
                    process.resume()

    def _postmaster(self) -> psutil.Process:
        process = find_process(self._data)
        assert process is not None, "PostgreSQL does not run"
        return process


def _line(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []  # it is gone, or not ours


class Program:
    """A Python module that runs as a process of its own, and those that it starts.

    Args:
        log: Where it writes.
        variables: Of its environment, beside those of this process.
        module: Its name.
        arguments: What it is called with.
    """

    def __init__(
        self, log: Path, variables: Mapping[str, str], module: str, *arguments: str
    ) -> None:
        self._log, self._variables = log, dict(variables)
        self._line = [sys.executable, "-m", module, *arguments]
        self._child: subprocess.Popen[bytes] | None = None
        self._orphans: list[psutil.Process] = []

    def start(self) -> None:
        """Starts it; the caller has seen to it that it does not run."""
        with self._log.open("ab") as file:
            self._child = subprocess.Popen(
                self._line,
                stdout=file,
                stderr=file,
                cwd=PROJECT_ROOT,
                env=os.environ | self._variables,
                start_new_session=True,  # Ctrl-C is for the harness, which kills the others
            )

    def keep_running(self) -> None:
        """What a supervisor does: starts it if it has ended, as it may when PostgreSQL is away."""
        if not self._runs():
            self.start()

    def kill(self) -> None:
        """Kills it as a whole, if it runs."""
        if self._child is not None:
            if self._child.poll() is None:
                kill_family(psutil.Process(self._child.pid))
            self._child.wait()
        kill(self._orphans)
        self._child, self._orphans = None, []

    def dbt(self) -> list[psutil.Process]:
        """The dbt that it has started."""
        return dbt_of(psutil.Process(self._child.pid)) if self._child is not None else []

    def _runs(self) -> bool:
        return self._child is not None and self._child.poll() is None


class ReceiverProgram(Program):
    """A receiver that can be killed in part; its supervisor starts it until it listens.

    Args:
        log: Where it writes.
        variables: Of its environment, beside those of this process.
        port: Its TCP port on 127.0.0.1.
        module: What is run: `stageline`, or what does the same.
        arguments: What comes before ``--port``.
    """

    def __init__(
        self, log: Path, variables: Mapping[str, str], port: int, module: str, *arguments: str
    ) -> None:
        super().__init__(log, variables, module, *arguments, "--port", str(port))
        self._port = port

    def start(self) -> None:
        """Returns when it takes requests."""
        deadline = time.monotonic() + _PATIENCE
        while time.monotonic() < deadline:
            super().start()
            while self._runs():
                if self._listens():
                    return
                time.sleep(0.05)
            # Workers whose parent was killed hold the address until they notice.
            time.sleep(0.1)
        raise AssertionError(f"the receiver did not start: {self._log.read_text()[-2000:]}")

    def ready(self) -> dict[str, Any]:
        """What it says of itself."""
        return self._receiver().ready()

    def kill_worker(self) -> None:
        """Kills one of the processes that take requests; the parent starts another one."""
        kill(self._receiver().workers()[:1])

    def kill_parent(self) -> None:
        """Kills the parent alone."""
        parent = self._receiver().process
        self._orphans += parent.children()
        kill([parent])
        self._child = None

    def _receiver(self) -> Receiver:
        assert self._child is not None, "the receiver was not started"
        return Receiver(self._port, psutil.Process(self._child.pid), self._log)

    def _listens(self) -> bool:
        try:
            # Without workers it has not got the address, and another one answers.
            return bool(self._receiver().workers() and self.ready())
        except (requests.RequestException, psutil.NoSuchProcess):
            return False
