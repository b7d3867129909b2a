"""A real ``stageline run`` for tests: its process, its log, and the parts that it keeps running."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import requests

from stageline import server
from stageline.postmaster import find_process
from tests.crash.processes import kill_family


@dataclass
class Run:
    """A ``stageline run``.

    Attributes:
        process: The supervisor.
        logs: The file of its lines.
        home: Its ``STAGELINE_HOME``.
        port: That of its receiver.
    """

    process: "subprocess.Popen[bytes]"
    logs: Path
    home: Path
    port: int

    def lines(self, part: str = "", event: str = "") -> list[dict[str, Any]]:
        """What it has logged, of a part, and with an event."""
        whole, _, _ = self.logs.read_text().rpartition("\n")  # the last line may be under way
        return [
            line
            for line in map(json.loads, whole.splitlines())
            if part in ("", line["part"]) and event in ("", line["event"])
        ]

    def parts(self) -> dict[str, psutil.Process]:
        """The processes that it has started, by the name of the part."""
        found = {}
        for child in psutil.Process(self.process.pid).children():
            try:
                line = child.cmdline()
            except psutil.Error:
                continue
            if "stageline.supervised" in line:
                found[line[line.index("stageline.supervised") + 1]] = child
        return found

    def postmaster(self) -> psutil.Process | None:
        """Its PostgreSQL."""
        return find_process((self.home / "postgres").resolve())

    def receives(self) -> bool:
        """Whether its receiver takes requests, and reaches PostgreSQL."""
        try:
            said = requests.get(f"http://127.0.0.1:{self.port}/readyz", timeout=5).json()
        except requests.RequestException:
            return False
        return bool(said["postgres"] == "up")

    def is_whole(self) -> bool:
        """Whether all that it keeps running runs."""
        return (
            server.find(self.home) is not None
            and self.parts().keys() == {"receiver", "worker"}
            and self.receives()
        )

    def until(self, condition: Callable[[], bool]) -> None:
        """As the function of that name, but tells what was logged last if it does not happen."""
        try:
            until(condition)
        except AssertionError as error:
            last = self.logs.read_text().splitlines()[-40:]
            raise AssertionError("\n".join([str(error), *last])) from None

    def stop(self, seconds: float = 60.0) -> int:
        """Stops it in order; gives its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(seconds)


@contextmanager
def running(
    logs: Path, home: Path, port: int, variables: Mapping[str, str], *arguments: str
) -> Iterator[Run]:
    """``stageline run``, which may not be ready yet; killed in the end with its parts.

    Args:
        logs: Where it writes.
        home: Its ``STAGELINE_HOME``.
        port: For its receiver.
        variables: More of its environment.
        arguments: More of its own.
    """
    with logs.open("ab") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "stageline", "run", "--port", str(port), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            env=os.environ | {"STAGELINE_HOME": str(home)} | dict(variables),
            start_new_session=True,
        )
    try:
        yield Run(process, logs, home, port)
    finally:
        if process.poll() is None:
            kill_family(psutil.Process(process.pid))
        process.wait()


def until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    """Waits for ``condition``."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)
