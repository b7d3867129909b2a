"""``stageline run``: what ends is started again, what is to stop stops, and nothing is left."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path

import psutil
import psycopg
import pytest

from jobs import refresh_runs
from stageline import config, migrate, server
from stageline.database import connect
from stageline.supervisor import _Pause, _Postgres
from tests.crash.processes import kill, kill_family
from tests.plain_postgres import free_port
from tests.refresh_groups import FLOW
from tests.supervised import Run, running, until

#: Whatever is due is no matter here: a group that is paused is not refreshed.
GROUP = """\
groups:
  flow:
    tag: refresh_flow
    schedule: "*/15 * * * *"
    zone: UTC
    never_older_than: 1h
    criticality: high
    owner: Operations
    retries: 1
    first_wait: 1m
    timeout: 1h
"""

Start = Callable[..., AbstractContextManager[Run]]


@pytest.fixture(scope="module")
def home(short_folder: Path) -> Iterator[Path]:
    """A home with a database, whose server does not run."""
    folder = short_folder / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STAGELINE_HOME", str(folder))
        config.settings.cache_clear()
        server.start(folder, 55450, durable=False)
        try:
            migrate.upgrade()
            with connect("jobs", autocommit=True) as session:
                now = datetime.now(UTC)
                refresh_runs.sync(session, {"flow": FLOW}, now)
                refresh_runs.pause(session, "flow", "a test", now)
            server.stop(folder)
            yield folder
        finally:
            server.stop(folder)
            config.settings.cache_clear()


@pytest.fixture(scope="module")
def start(home: Path, short_folder: Path) -> Start:
    """Starts ``stageline run`` in ``home``."""
    refreshes = short_folder / "run.yml"
    refreshes.write_text(GROUP)

    def start(*arguments: str, port: int | None = None) -> AbstractContextManager[Run]:
        logs = short_folder / f"run-{time.monotonic_ns()}.log"
        return running(
            *(logs, home, port or free_port()),
            {
                "STAGELINE_KPI_REFRESH_CONFIG": str(refreshes),
                "STAGELINE_ENV_FILE": str(short_folder / "run.env"),
                "STAGELINE_RECEIVER_WORKERS": "1",
            },
            *arguments,
        )

    return start


def test_it_stops_all_that_it_started_in_order(start: Start) -> None:
    with start() as run:
        run.until(run.is_whole)
        family = psutil.Process(run.process.pid).children(recursive=True)
        assert run.stop() == 0
        ended = [line["what"] for line in run.lines("run", "ended")]
        assert ended == ["receiver", "worker"]
        assert {line["code"] for line in run.lines("run", "ended")} == {0}
        assert run.postmaster() is None
        assert [process for process in family if process.is_running()] == []


def test_killed_itself_it_leaves_only_postgresql_which_the_next_one_then_leaves_alone(
    start: Start,
) -> None:
    with start() as run:
        run.until(run.is_whole)
        started = [each for part in run.parts().values() for each in [part, *part.children()]]
        assert len(started) >= 3, "the receiver has a process for requests"
        run.process.kill()
        run.process.wait()
        until(lambda: not any(process.is_running() for process in started), 30)
        postmaster = run.postmaster()
        assert postmaster is not None
    with start() as run:
        run.until(run.is_whole)
        assert run.stop() == 0
        assert run.postmaster() == postmaster
    server.stop(run.home)


def test_a_second_signal_does_not_wait(start: Start) -> None:
    with start() as run:
        until(lambda: bool(run.lines("run", "started")) and "receiver" in run.parts())
        receiver = run.parts()["receiver"]
        receiver.suspend()
        run.process.send_signal(signal.SIGINT)
        until(lambda: bool(run.lines("run", "stops")))
        began = time.monotonic()
        run.process.send_signal(signal.SIGINT)
        assert run.process.wait(30) == 0
        assert time.monotonic() - began < 10, "less than the receiver has to end by itself"
        assert not receiver.is_running()


def test_what_cannot_start_ends_it_with_one_error_that_says_why(start: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with start(port=port) as run:
            assert run.process.wait(60) == 1
            *_, last = run.logs.read_text().splitlines()
    assert last.startswith(f"error: The receiver cannot start: Cannot listen on 127.0.0.1:{port}")
    assert run.postmaster() is None


@pytest.mark.parametrize("is_gone", [True, False], ids=["all of it", "a session"])
def test_postgresql_that_dies_while_it_is_started_is_started_again(
    home: Path, monkeypatch: pytest.MonkeyPatch, is_gone: bool
) -> None:
    begin, starts = server.start, []

    def dies_at_first(folder: Path, port: int) -> server.Running:
        starts.append(begin(folder, port))
        if len(starts) > 1:
            return starts[-1]
        if is_gone:
            server.stop(folder)
        raise psycopg.OperationalError("server closed the connection unexpectedly")

    monkeypatch.setattr(server, "start", dies_at_first)
    monkeypatch.setenv("STAGELINE_ENV_FILE", str(home.with_name("starts.env")))
    config.settings.cache_clear()
    keeper = _Postgres()
    keeper.start()
    try:
        until(lambda: len(starts) == 2 and not keeper.is_away)
    finally:
        keeper.leave()
        server.stop(home)


@pytest.fixture(scope="module")
def kept(start: Start) -> Iterator[Run]:
    """One that runs, for tests that leave it whole."""
    with start() as run:
        run.until(run.is_whole)
        yield run
        assert run.stop() == 0


def command(run: Run, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "stageline", *arguments],
        env=os.environ | {"STAGELINE_HOME": str(run.home)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_second_one_and_down_are_refused_in_one_line(kept: Run) -> None:
    for said in (command(kept, "run"), command(kept, "down")):
        assert (said.returncode, said.stdout, said.stderr.count("\n")) == (1, "", 1), said
        assert f"process {kept.process.pid}" in said.stderr
    assert kept.is_whole()


def test_each_line_says_which_part_it_is_of(kept: Run) -> None:
    kept.until(lambda: bool(kept.lines("worker")))  # it runs before it says so
    parts = {line["part"] for line in kept.lines() if line["event"] and line["timestamp"]}
    assert parts >= {"setup", "run", "receiver", "worker"}
    assert kept.lines("worker", "worker starts")
    assert kept.lines("run", "keeps running")


@pytest.mark.parametrize("part", ["receiver", "worker"])
def test_a_part_that_is_killed_is_started_again(kept: Run, part: str) -> None:
    killed = kept.parts()[part]
    kill([killed])
    kept.until(lambda: kept.is_whole() and kept.parts()[part].pid != killed.pid)
    ended = [line for line in kept.lines("run", "ended") if line["what"] == part]
    assert (ended[-1]["signal"], ended[-1]["level"]) == (signal.SIGKILL, "warning")


@pytest.mark.parametrize("whole", [False, True])
def test_postgresql_is_started_again_and_takes_writes(kept: Run, whole: bool) -> None:
    killed = kept.postmaster()
    assert killed is not None
    (kill_family if whole else lambda process: kill([process]))(killed)
    kept.until(lambda: kept.is_whole() and kept.postmaster() != killed)
    with server.superuser(kept.home, "stageline") as session:
        session.execute("create table kept_running (n int); drop table kept_running")
    assert kept.lines("run", "is gone")


def test_pauses_grow_up_to_a_limit_until_a_part_has_lived_well() -> None:
    pause = _Pause()
    assert [pause.after(lived=3) for _ in range(7)] == [1, 2, 4, 8, 16, 30, 30]
    assert [pause.after(lived=60), pause.after(lived=59)] == [1, 2]
