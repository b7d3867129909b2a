"""``stageline worker`` and ``follow-ups`` as processes, on real deliveries and CRMs over HTTP."""

import itertools
import json
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, LiteralString

import pytest
from click.testing import CliRunner, Result

from jobs.follow_ups import plan
from jobs.worker import WatchedThread, periodic_tasks
from stageline import config, migrate
from stageline.cli import main
from stageline.database import connect
from stageline.errors import StagelineError
from stageline.settings import api_accounts, encryption, projects
from tests.conftest import TEMPLATE, TestServer, _clone
from tests.fakes.keycrm import FakeKeycrm
from tests.fakes.pipedrive import FakePipedrive
from tests.plain_postgres import PASSWORD, PlainServer
from tests.unit.test_senders import RECORDED
from webhook_receiver import raw_tables
from webhook_receiver.delivery import Delivery, read


class Setting:
    """Project ``deals`` of a fake Pipedrive and project ``shop`` of a fake KeyCRM.

    Attributes:
        owner: A connection of the owner, in autocommit mode.
    """

    def __init__(self, pipedrive: FakePipedrive, keycrm: FakeKeycrm) -> None:
        self.pipedrive, self.keycrm = pipedrive, keycrm
        self.owner = connect("owner", autocommit=True)

    def rows(self, query: LiteralString, *values: object) -> list[tuple[Any, ...]]:
        return self.owner.execute(query, values).fetchall()

    def deals_arrive(self, count: int) -> list[int]:
        deals = [self.pipedrive.add_deal().deal_id for _ in range(count)]
        land("pipedrive", "deals", *(_deal_body(deal_id) for deal_id in deals))
        return deals

    def orders_arrive(self, count: int) -> list[int]:
        orders = [self.keycrm.add_order() for _ in range(count)]
        land("keycrm", "shop", *(_order_body(order_id) for order_id in orders))
        return orders

    def plan(self) -> None:
        with connect("jobs", autocommit=True) as jobs:
            plan(jobs)

    def has_answered(self, *entity_ids: int) -> bool:
        """Whether these, and no others, have been answered."""
        answered = self.rows("select entity_id from ops.follow_ups where answered >= requested")
        return {int(entity_id) for (entity_id,) in answered} == set(entity_ids)


def land(sender: str, project: str, *bodies: bytes) -> None:
    """Does what the receiver does with deliveries."""
    now = datetime.now(UTC)
    with connect("receiver", autocommit=True) as session:
        raw_tables.insert(
            session,
            [read(Delivery(sender, project, now, (1,), {}, body, "UTC")) for body in bodies],
        )


def _deal_body(deal_id: int) -> bytes:
    body = json.loads(RECORDED["pipedrive_v2_change.json"])
    body["meta"] |= {"entity_id": str(deal_id), "id": f"delivery-{deal_id}"}
    body["data"]["id"] = deal_id
    return json.dumps(body).encode()


def _order_body(order_id: int) -> bytes:
    body = json.loads(RECORDED["keycrm_order_status.json"])
    body["context"]["id"] = order_id
    return json.dumps(body).encode()


@dataclass
class Worker:
    """A process of ``stageline worker``, and the file of its JSON lines."""

    process: "subprocess.Popen[bytes]"
    logs: Path

    def lines(self, event: str = "") -> list[dict[str, Any]]:
        found = [json.loads(line) for line in self.logs.read_text().splitlines()]
        return [line for line in found if event in ("", line["event"])]

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(20)


@contextmanager
def running_worker(folder: Path, *arguments: str) -> Iterator[Worker]:
    """A worker that works; it is killed in the end, if it still lives."""
    logs = folder / f"worker-{time.monotonic_ns()}.log"
    with logs.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "stageline", "worker", "--no-refresh", *arguments],
            stdout=file,
            stderr=file,
        )
    started = Worker(process, logs)
    try:
        until(lambda: bool(started.lines("worker starts")) or process.poll() is not None)
        assert process.poll() is None, logs.read_text()
        yield started
    finally:
        process.kill()
        process.wait()


def until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    """Waits for ``condition``."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def command(*arguments: str) -> Result:
    result = CliRunner().invoke(main, list(arguments))
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def done(*arguments: str) -> str:
    result = command(*arguments)
    assert result.exit_code == 0, result.output
    return result.output


def once() -> "subprocess.CompletedProcess[str]":
    """``stageline worker --once`` as a process, since its log is the process's own."""
    return subprocess.run(
        [sys.executable, "-m", "stageline", "worker", "--once"],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


@pytest.fixture(scope="module")
def shared_database(server: TestServer, short_folder: Path) -> Iterator[None]:
    """One database for this module: a copy for each test would take longer than the tests."""
    folder = short_folder / "worker"
    folder.mkdir()
    with pytest.MonkeyPatch.context() as patch, _clone(server, TEMPLATE, folder, patch):
        patch.setenv("STAGELINE_SECRET_KEY", encryption.new_key())
        config.settings.cache_clear()
        yield


@contextmanager
def setting() -> Iterator[Setting]:
    """The two projects, and their CRMs, on the configured database."""
    with FakePipedrive() as pipedrive, FakeKeycrm() as keycrm:
        made = Setting(pipedrive, keycrm)
        with closing(made.owner):
            for source, project, crm in (
                ("pipedrive", "deals", pipedrive),
                ("keycrm", "shop", keycrm),
            ):
                projects.add(source, project)
                api_accounts.store(source, project, crm.token, crm.base_url)
            yield made


@pytest.fixture
def here(shared_database: None) -> Iterator[Setting]:  # noqa: ARG001 - what is configured here
    with setting() as made:
        made.owner.execute(
            """
            truncate ops.follow_ups, ops.api_pace, raw.deliveries, raw.delivery_bodies,
                raw_pipedrive.deals, raw_pipedrive.deal_changes, raw_keycrm.orders,
                raw_keycrm.order_items
            """
        )
        yield made


# The worker that stays


def test_two_workers_share_the_work_and_hold_the_pace_together(
    here: Setting, tmp_path: Path
) -> None:
    with running_worker(tmp_path) as first, running_worker(tmp_path) as second:
        deals, orders = here.deals_arrive(16), here.orders_arrive(3)
        until(lambda: here.has_answered(*deals, *orders))
        assert (first.stop(), second.stop()) == (0, 0)
    asked = [{line["entity_id"] for line in each.lines("follow-up")} for each in (first, second)]
    assert all(asked)
    assert not asked[0] & asked[1]
    assert len(here.pipedrive.calls) == 2 * len(deals)
    assert here.pipedrive.busiest(2.0) <= 20
    moments = [call.at for call in here.keycrm.calls]
    assert len(moments) == len(orders)
    assert all(later - at > 0.9 for at, later in itertools.pairwise(moments))
    assert {line["outcome"] for each in (first, second) for line in each.lines("follow-up")} == {
        "answered"
    }
    ((stored,),) = here.rows("select count(*) from raw_pipedrive.deals")
    assert stored == len(deals)


def test_what_a_killed_worker_was_doing_is_done_by_another(here: Setting, tmp_path: Path) -> None:
    with running_worker(tmp_path) as first, here.pipedrive.holding("deals") as gate:
        (deal_id,) = here.deals_arrive(1)
        gate.await_call()
        with running_worker(tmp_path) as second:
            first.process.kill()
            first.process.wait()
            gate.open()
            time.sleep(0.7)
            assert second.lines("follow-up") == []  # the dead one's lease has not ended
            here.owner.execute("update ops.follow_ups set claimed_until = now()")
            until(lambda: here.has_answered(deal_id))
            (line,) = second.lines("follow-up")
            assert (line["outcome"], line["attempt"]) == ("answered", 2)


def test_a_worker_that_is_told_to_stop_ends_its_work_or_hands_it_back(
    here: Setting, tmp_path: Path
) -> None:
    with (
        running_worker(tmp_path, "--threads", "2") as worker,
        here.pipedrive.holding("/api/v2/deals/501$") as short,
        here.pipedrive.holding("/api/v2/deals/502$") as long,
    ):
        here.deals_arrive(2)
        short.await_call()
        long.await_call()
        told = time.monotonic()
        worker.process.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        here.deals_arrive(1)
        short.open()
        assert worker.process.wait(20) == 0
        assert time.monotonic() - told < 6
    assert here.has_answered(501)
    assert here.rows(
        "select attempts, claimed_until <= now() from ops.follow_ups where entity_id = '502'"
    ) == [(0, True)]
    assert "2 answered" in once().stdout
    assert here.has_answered(501, 502, 503)


def test_a_second_signal_ends_a_worker_at_once(here: Setting, tmp_path: Path) -> None:
    with running_worker(tmp_path) as worker, here.pipedrive.holding("deals") as gate:
        here.deals_arrive(1)
        gate.await_call()
        worker.process.send_signal(signal.SIGINT)
        until(lambda: bool(worker.lines("worker stops")))
        worker.process.send_signal(signal.SIGINT)
        assert worker.process.wait(1) == 128 + signal.SIGINT


def test_a_worker_goes_on_by_itself_when_the_database_comes_back(
    short_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = short_folder / "away_from_the_worker"
    folder.mkdir()
    server = PlainServer(folder / "data")
    server.create()
    server.start()
    try:
        with server.session() as session:
            session.execute("create database away")
        monkeypatch.setenv(
            "STAGELINE_DATABASE_URL",
            f"postgresql://postgres:{PASSWORD}@127.0.0.1:{server.port}/away",
        )
        monkeypatch.setenv("STAGELINE_SECRET_KEY", encryption.new_key())
        config.settings.cache_clear()
        migrate.upgrade()
        with setting() as here, running_worker(tmp_path) as worker:
            (before,) = here.deals_arrive(1)
            until(lambda: here.has_answered(before))
            server.kill()
            until(lambda: len(worker.lines("follow-up work waits for the database")) >= 4)
            until(lambda: bool(worker.lines("periodic tasks")))
            server.start()
            server.session().close()
            here.owner = connect("owner", autocommit=True)
            (after,) = here.deals_arrive(1)
            until(lambda: here.has_answered(before, after))
            assert worker.stop() == 0
    finally:
        server.kill()
        config.settings.cache_clear()


def test_it_tells_metrics_to_those_who_are_named(
    here: Setting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here.deals_arrive(1)
    here.owner.execute("delete from settings.api_accounts")
    with socket.socket() as found, socket.socket(type=socket.SOCK_DGRAM) as agent:
        found.bind(("127.0.0.1", 0))
        agent.bind(("127.0.0.1", 0))
        agent.settimeout(10)
        port = found.getsockname()[1]
        found.close()
        monkeypatch.setenv("STAGELINE_DOGSTATSD", f"127.0.0.1:{agent.getsockname()[1]}")
        with running_worker(tmp_path, "--metrics-port", str(port)) as worker:
            until(lambda: 'follow_ups{state="no_token"} 1.0' in _got(port, "/metrics"))
            assert 'refresh_runs_total{group="flow",outcome="failed"} 0.0' in _got(port, "/metrics")
            assert _got(port, "/healthz") == "alive\n"
            assert agent.recv(65536).startswith(b"stageline.postgres_up:1|g")
            assert worker.stop() == 0


def _got(port: int, path: str) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
        text: str = answer.read().decode()
    return text


def test_a_worker_that_ends_serves_no_metrics() -> None:
    result = command("worker", "--once", "--metrics-port", "8788")
    assert result.output == "error: --metrics-port is for a worker that stays: leave --once out.\n"


def test_a_thread_that_dies_ends_the_worker_with_an_error(here: Setting, tmp_path: Path) -> None:
    with running_worker(tmp_path, "--threads", "1") as worker:
        here.owner.execute("alter table ops.follow_ups rename to missing")
        try:
            assert worker.process.wait(20) == 70
        finally:
            here.owner.execute("alter table ops.missing rename to follow_ups")
    assert "error: The thread follow-ups 1 of the worker died (UndefinedTable)." in (
        worker.logs.read_text()
    )


def test_a_thread_that_no_longer_looks_up_is_told_from_one_that_waits() -> None:
    stop, released = threading.Event(), threading.Event()
    waits = WatchedThread("waits", _wait_for, stop)
    hangs = WatchedThread("hangs", lambda _: _wait_for(released), stop)
    for thread in (waits, hangs):
        thread.start()
    try:
        with pytest.raises(StagelineError, match="The thread hangs of the worker has hung for 1 s"):
            for _ in range(10):
                time.sleep(0.05)
                waits.require_progress(1.0)
                hangs.require_progress(1.0)
    finally:
        stop.set()
        released.set()


def _wait_for(order: threading.Event) -> None:
    while not order.is_set():
        order.wait(0.01)


def test_what_is_to_be_done_is_planned_and_counted_by_the_clock(here: Setting) -> None:
    plan_now, count, *_ = (task.work for task in periodic_tasks())
    assert (plan_now(), count()) == (None, None)
    here.deals_arrive(2)
    here.owner.execute("delete from settings.api_accounts where source_system = 'keycrm'")
    here.orders_arrive(1)
    assert plan_now() == {"planned": 3}
    assert plan_now() is None
    here.owner.execute("update ops.follow_ups set requested_at = now() - interval '90 seconds'")
    assert count() == {"waiting": 2, "no_token": 1, "oldest_seconds": 90}


# The worker that does what is due


def test_once_with_nothing_to_do_says_so(here: Setting) -> None:
    ended = once()
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "Nothing was due.\n", "")
    assert here.pipedrive.calls == []


def test_once_does_what_is_due_and_ends(here: Setting) -> None:
    deals, orders = here.deals_arrive(2), here.orders_arrive(1)
    ended = once()
    assert (ended.returncode, ended.stdout) == (0, "Asked about 3: 3 answered.\n")
    assert here.has_answered(*deals, *orders)


def test_once_tells_why_a_crm_refuses_and_how_to_mend_it(here: Setting) -> None:
    deals = here.deals_arrive(3)
    here.pipedrive.token = "another-token"
    ended = once()
    assert ended.returncode == 0
    first, *rest = ended.stdout.splitlines()
    assert first == "Asked about 1: 1 to be tried again."
    assert sum("HTTP 401: the API token is wrong or no longer valid" in line for line in rest) == 1
    assert "2 more not done: `stageline follow-ups` lists them." in rest
    assert "stageline projects api" in ended.stderr
    listed = done("follow-ups")
    assert listed.count("HTTP 401") == 3
    api_accounts.store("pipedrive", "deals", here.pipedrive.token)
    assert "3 due now" in done("follow-ups", "retry", "pipedrive_deal", "deals")
    assert once().stdout == "Asked about 3: 3 answered.\n"
    assert here.has_answered(*deals)


def test_once_ends_with_1_where_something_was_given_up(here: Setting) -> None:
    here.deals_arrive(2)
    here.plan()
    here.owner.execute(
        "update ops.follow_ups set attempts = 8, claimed_until = now() where entity_id = '501'"
    )
    here.owner.execute("update ops.follow_ups set attempts = 7 where entity_id = '502'")
    here.pipedrive.token = "another-token"
    ended = once()
    assert ended.returncode == 1
    assert "Asked about 1: 1 given up." in ended.stdout
    assert "its worker died in attempt 8 of 8" in ended.stdout
    assert "HTTP 401" in ended.stdout
    done("worker", "--once")  # it was not this one that gave up


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("STAGELINE_SECRET_KEY", "", "STAGELINE_SECRET_KEY is not set"),
        ("STAGELINE_DATABASE_URL", "postgresql://nobody@127.0.0.1:1/x", "Cannot reach PostgreSQL"),
    ],
)
@pytest.mark.usefixtures("here")
def test_a_worker_that_cannot_begin_says_why_in_one_line(
    variable: str, value: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    config.settings.cache_clear()
    for arguments in (["worker"], ["worker", "--once"]):
        result = command(*arguments)
        (line,) = result.output.splitlines()
        assert (result.exit_code, line[:7]) == (1, "error: ")
        assert said in line
    monkeypatch.undo()
    config.settings.cache_clear()


def test_a_worker_on_a_database_of_an_older_stageline_asks_for_up(here: Setting) -> None:
    here.owner.execute("update ops.alembic_version set version_num = '0004'")
    try:
        for arguments in (["worker"], ["follow-ups"], ["follow-ups", "retry", "--all"]):
            result = command(*arguments)
            assert (result.exit_code, result.output) == (
                1,
                "error: The database is not up to date. Run `stageline up`, then try again.\n",
            )
    finally:
        here.owner.execute("update ops.alembic_version set version_num = %s", [migrate.head()])


# What is still to be asked


def states(listed: str) -> list[str]:
    """The third and fourth words of each row."""
    return [" ".join(line.split()[2:4]) for line in listed.splitlines() if "_" in line.split()[0]]


def test_the_list_names_every_follow_up_and_never_hides_how_many_there_are(here: Setting) -> None:
    assert done("follow-ups") == "Nothing is left to be asked.\n"
    here.deals_arrive(1)
    here.orders_arrive(3)
    here.owner.execute("delete from settings.api_accounts where source_system = 'pipedrive'")
    here.keycrm.token = "another-token"
    done("worker", "--once")
    listed = done("follow-ups")
    assert states(listed) == ["4001 waiting", "4002 waiting", "4003 waiting", "501 no"]
    assert "\n4: 3 waiting, 1 no token.\n" in listed
    assert "`stageline projects api pipedrive deals`" in listed
    cut = done("follow-ups", "--limit", "1")
    assert states(cut) == ["4001 waiting"]
    assert "\nThe oldest 1 of 4: 3 waiting, 1 no token; more with --limit.\n" in cut
    assert states(done("follow-ups", "--state", "no-token")) == ["501 no"]
    assert "\n3: 3 waiting.\n" in done("follow-ups", "--project", "shop")
    assert done("follow-ups", "--state", "gave-up") == "None.\n"
    assert done("follow-ups", "--state", "done") == "None.\n"


def test_the_list_of_what_is_done_is_shown_when_asked_for(here: Setting) -> None:
    here.deals_arrive(2)
    done("worker", "--once")
    assert done("follow-ups") == "Nothing is left to be asked.\n"
    listed = done("follow-ups", "--state", "done", "--limit", "1")
    assert listed.endswith("The latest 1 of 2 done; more with --limit.\n")
    assert done("follow-ups", "--state", "done", "--project", "shop") == "None.\n"


def test_what_was_given_up_is_tried_again_by_hand(here: Setting) -> None:
    here.deals_arrive(2)
    here.plan()
    here.owner.execute("update ops.follow_ups set gave_up_at = now(), due_at = null, attempts = 8")
    assert "\n2: 2 gave up.\n" in done("follow-ups", "--state", "gave-up")
    assert done("follow-ups", "retry", "keycrm_order").startswith("Nothing of that has failed")
    assert done("follow-ups", "retry", "pipedrive_deal", "deals", "501").startswith("1 due now.")
    assert "1 waiting, 1 gave up" in done("follow-ups")
    assert done("follow-ups", "retry", "--all").startswith("2 due now.")
    assert "\n2: 2 waiting.\n" in done("follow-ups")


@pytest.mark.parametrize(
    "arguments",
    [["retry"], ["retry", "keycrm_order", "--all"], ["--project", "shop", "retry", "--all"]],
)
def test_what_to_try_again_has_to_be_said_in_full(arguments: list[str]) -> None:
    result = command("follow-ups", *arguments)
    (line,) = result.output.splitlines()
    assert (result.exit_code, line[:7]) == (1, "error: ")
