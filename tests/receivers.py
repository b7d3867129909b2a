"""A real receiver for the tests: `stageline receiver` as a process of its own, on a free port."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests

from stageline import config
from stageline.settings import encryption, projects, webhook_checks
from tests.plain_postgres import free_port

TOKEN = "a-token-of-the-tests"


@dataclass(frozen=True)
class Receiver:
    """A receiver that runs.

    Attributes:
        port: Its TCP port on 127.0.0.1.
        process: Its parent process; the workers are its children.
        logs: The file of its JSON lines.
    """

    port: int
    process: psutil.Process
    logs: Path

    @property
    def url(self) -> str:
        """Its address, without a slash at the end."""
        return f"http://127.0.0.1:{self.port}"

    def ready(self) -> dict[str, Any]:
        """What it says of itself."""
        said: dict[str, Any] = requests.get(f"{self.url}/readyz", timeout=5).json()
        return said

    def lines(self) -> list[dict[str, Any]]:
        """What it has logged."""
        return [json.loads(line) for line in self.logs.read_text().splitlines()]

    def workers(self) -> list[psutil.Process]:
        """The processes that take requests."""
        return [child for child in self.process.children() if child.is_running()]

    def kill(self) -> None:
        """Ends all of it at once, as a power cut would (kill -9)."""
        for process in [self.process, *self.process.children(recursive=True)]:
            try:
                process.send_signal(signal.SIGKILL)
            except psutil.NoSuchProcess:
                continue
        self.process.wait(10)


@contextmanager
def running_receiver(
    folder: Path, *arguments: str, port: int | None = None, **variables: str
) -> Iterator[Receiver]:
    """A receiver on the configured database; it is stopped in the end.

    Args:
        folder: Where its log goes, and its spool unless `variables` say otherwise.
        arguments: More arguments of `stageline receiver`.
        port: Its port; a free one by default.
        variables: More variables of its environment.
    """
    chosen = port or free_port()
    logs = folder / f"receiver-{chosen}.log"
    spool = {"STAGELINE_SPOOL": str(folder / "spool.sqlite")}
    with logs.open("a") as file:
        child = subprocess.Popen(
            [sys.executable, "-m", "stageline", "receiver", "--port", str(chosen), *arguments],
            stdout=file,
            stderr=file,
            env={**os.environ, **spool, **variables},
        )
    receiver = Receiver(chosen, psutil.Process(child.pid), logs)
    try:
        _await(receiver, child)
        yield receiver
    finally:
        child.send_signal(signal.SIGTERM)
        try:
            child.wait(20)
        except subprocess.TimeoutExpired:
            receiver.kill()
            raise


def _await(receiver: Receiver, child: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            requests.get(f"{receiver.url}/healthz", timeout=1)
        except requests.RequestException:
            if child.poll() is not None:
                break
            time.sleep(0.05)
        else:
            return
    raise AssertionError(f"the receiver did not start: {receiver.logs.read_text()}")


def use_key(patch: pytest.MonkeyPatch) -> None:
    """Gives this process, and those it starts, a key for secrets."""
    patch.setenv("STAGELINE_SECRET_KEY", encryption.new_key())
    config.settings.cache_clear()


def let_in(sender: webhook_checks.Sender, project: str, timezone: str = "UTC") -> dict[str, str]:
    """Makes a project whose sender is known by `TOKEN`; gives the header to send it in."""
    projects.add(webhook_checks.source_system(sender), project, timezone=timezone)
    webhook_checks.allow(sender, project, "token", secret=TOKEN)
    return {"X-Webhook-Token": TOKEN}
