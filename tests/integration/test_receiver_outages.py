"""PostgreSQL is away: what was acknowledged is on a disk, and comes over by itself, once."""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests

from stageline import config, migrate, server
from stageline.database import connect
from tests.receivers import TOKEN, Receiver, let_in, running_receiver, use_key
from tests.shared_receivers import PATHS, at_once, order, until

PORT = 56800
AUTH = {"X-Webhook-Token": TOKEN, "Connection": "close"}


@dataclass(frozen=True)
class Own:
    """A server that may be stopped, and a receiver that works on it.

    Attributes:
        home: The server's folder.
        folder: The receiver's folder, with its spool.
    """

    home: Path
    folder: Path
    receiver: Receiver

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """Stops the server for the time of the block, and waits until that is noticed."""
        server.stop(self.home)
        try:
            until(lambda: self.receiver.ready()["postgres"] != "up")
            yield
        finally:
            server.start(self.home, PORT, durable=False)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Stops all processes of the server in their tracks for the time of the block."""
        postmaster = psutil.Process(
            int((self.home / "postgres" / "postmaster.pid").read_text().split()[0])
        )
        processes = [postmaster, *postmaster.children(recursive=True)]
        for process in processes:
            process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            for process in processes:
                process.send_signal(signal.SIGCONT)


@pytest.fixture(scope="module")
def own(short_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Own]:
    home, folder = short_folder / "away", tmp_path_factory.mktemp("receiver")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STAGELINE_HOME", str(home))
        patch.setenv("STAGELINE_ENV_FILE", str(folder / ".env"))
        use_key(patch)
        try:
            server.start(home, PORT, durable=False)
            migrate.upgrade()
            let_in("keycrm", "shop")
            let_in("zapier", "deals")
            with running_receiver(folder) as receiver:
                yield Own(home, folder, receiver)
        finally:
            server.stop(home)
            config.settings.cache_clear()


def post(receiver: Receiver, body: bytes) -> requests.Response:
    url = receiver.url + PATHS["keycrm"].format("shop")
    return requests.post(url, data=body, headers=AUTH, timeout=20)


def landed(bodies: list[bytes]) -> list[dict[str, Any]]:
    """The deliveries with these bodies, in the order in which they were received."""
    with connect("owner") as session:
        found = session.execute(
            "select body, received_at, landed_at, landed_xid::text::bigint,"
            " (select count(*) from raw.stage_events where delivery_id = deliveries.delivery_id)"
            " from raw.deliveries inner join raw.delivery_bodies using (delivery_id, received_at)"
            " where body = any(%s) order by received_at",
            [bodies],
        ).fetchall()
    names = ("body", "received_at", "landed_at", "landed_xid", "events")
    return [dict(zip(names, row, strict=True)) for row in found]


def drained(receiver: Receiver) -> bool:
    said = receiver.ready()
    return said["postgres"] == "up" and said.get("spooled") == 0


def number(receiver: Receiver, name: str) -> float:
    """One of the metrics."""
    lines = requests.get(f"{receiver.url}/metrics", timeout=5).text.splitlines()
    (value,) = (line.split(" ")[1] for line in lines if line.startswith(name + " "))
    return float(value)


def test_deliveries_wait_in_the_spool_and_come_over_in_order_and_once(own: Own) -> None:
    bodies = [order(id=number) for number in range(150)]
    with own.stopped():
        before = datetime.now(UTC)
        for body in bodies:
            answer = post(own.receiver, body)
            assert answer.status_code == 200
            assert answer.elapsed.total_seconds() < 3
        assert post(own.receiver, bodies[7]).json()["status"] == "accepted"  # a second time
        after = datetime.now(UTC)
        said = own.receiver.ready()
        assert said["status"] == "ready"
        assert said["postgres"].startswith("away: ")
        assert said["spooled"] == 151
        assert before < datetime.fromisoformat(said["spooled_since"]) < after
        assert number(own.receiver, "stageline_webhook_spool_deliveries") == 151
        assert number(own.receiver, "stageline_webhook_spool_age_seconds") > 0
        assert number(own.receiver, "stageline_webhook_postgres_up") == 0
    until(lambda: drained(own.receiver))
    rows = landed(bodies)
    assert [row["body"] for row in rows] == bodies
    assert [row["events"] for row in rows] == [1] * 150
    assert all(before < row["received_at"] < after < row["landed_at"] for row in rows)
    transactions = [row["landed_xid"] for row in rows]
    assert transactions == sorted(transactions)
    assert len(set(transactions)) > 1
    assert number(own.receiver, "stageline_webhook_spool_deliveries") == 0

    def outcomes() -> list[str]:
        lines = own.receiver.lines()
        return [line["outcome"] for line in lines if line["event"] == "landed from spool"]

    until(lambda: len(outcomes()) == 151)
    assert outcomes().count("duplicate") == 1


def test_a_frozen_server_keeps_nobody_waiting_and_doubles_nothing(own: Own) -> None:
    bodies = [order(id=f"frozen {number}") for number in range(40)]
    for answer in at_once(16, lambda number: post(own.receiver, order(id=f"thawed {number}"))):
        assert answer.status_code == 200  # and its worker has a session
    with own.frozen():
        answers = at_once(24, lambda number: post(own.receiver, bodies[number]))
        answers += [post(own.receiver, body) for body in bodies[24:]]
    assert {answer.status_code for answer in answers} == {200}
    assert max(answer.elapsed.total_seconds() for answer in answers) < 3
    until(lambda: drained(own.receiver), 20)
    rows = landed(bodies)
    assert sorted(row["body"] for row in rows) == sorted(bodies)
    assert [row["events"] for row in rows] == [1] * 40


def test_a_server_that_is_restarted_under_load_costs_nothing(own: Own) -> None:
    accepted: list[bytes] = []
    ended = threading.Event()

    def keep_sending(sender: int) -> None:
        for count in range(10_000):
            if ended.is_set():
                return
            body = order(id=f"restarted {sender} {count}")
            assert post(own.receiver, body).status_code == 200
            accepted.append(body)

    threads = [threading.Thread(target=keep_sending, args=[sender]) for sender in range(4)]
    for thread in threads:
        thread.start()
    time.sleep(0.3)
    server.stop(own.home)
    time.sleep(0.3)
    server.start(own.home, PORT, durable=False)
    time.sleep(0.3)
    ended.set()
    for thread in threads:
        thread.join()
    until(lambda: drained(own.receiver))
    assert len(accepted) > 50
    rows = landed(accepted)
    assert sorted(row["body"] for row in rows) == sorted(accepted)
    assert {row["events"] for row in rows} == {1}


def test_a_receiver_that_starts_meanwhile_knows_who_may_send_from_the_spool(
    own: Own, tmp_path: Path
) -> None:
    body = order(id="started meanwhile")
    with own.stopped():
        spool = str(own.folder / "spool.sqlite")
        with running_receiver(tmp_path, STAGELINE_SPOOL=spool) as another:
            assert post(another, body).status_code == 200
            zap = PATHS["zapier"].partition("?")[0]  # of the only project that there is
            answer = requests.post(another.url + zap, data=body, headers=AUTH, timeout=20)
            assert answer.status_code == 200
            assert post(another, b"").status_code == 200
            wrong = requests.post(another.url + zap, data=body, timeout=20)
            assert wrong.status_code == 401
        assert own.receiver.ready()["spooled"] == 3
    until(lambda: drained(own.receiver))
    assert len(landed([body])) == 2


def test_a_receiver_that_never_knew_who_may_send_takes_nothing_until_it_does(
    own: Own, tmp_path: Path
) -> None:
    body = order(id="not known from whom")
    with own.stopped(), running_receiver(tmp_path) as another:
        answer = post(another, body)
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "30")
        ready = requests.get(f"{another.url}/readyz", timeout=5)
        assert ready.status_code == 503
        assert ready.json()["status"] == "not ready: it is not known yet who may send"
        server.start(own.home, PORT, durable=False)
        until(lambda: post(another, body).status_code == 200)
        until(lambda: drained(another))
    assert len(landed([body])) == 1


def test_a_damaged_spool_is_put_aside(own: Own, tmp_path: Path) -> None:
    spool, body = tmp_path / "spool.sqlite", order(id="in a new spool")
    spool.write_bytes(b"this was a spool" * 1000)
    with running_receiver(tmp_path) as another:
        (aside,) = tmp_path.glob("spool.sqlite.damaged-*")
        assert aside.read_bytes() == b"this was a spool" * 1000
        (line,) = (line for line in another.lines() if line["event"] == "spool is damaged")
        assert line["moved_to"] == str(aside)
        with own.stopped():
            until(lambda: another.ready()["postgres"] != "up")
            assert post(another, body).status_code == 200
        until(lambda: drained(another))
    assert len(landed([body])) == 1


def test_a_spool_that_is_full_is_told_and_what_it_took_is_safe(own: Own, tmp_path: Path) -> None:
    bodies = [order(id=f"much {number}", manager_comment="x" * 60_000) for number in range(30)]
    limit = {"STAGELINE_SPOOL_LIMIT": str(2**20), "STAGELINE_RECEIVER_WORKERS": "1"}
    with running_receiver(tmp_path, **limit) as another:
        with own.stopped():
            until(lambda: another.ready()["postgres"] != "up")
            answers = [post(another, body) for body in bodies]
            assert {answer.headers.get("Retry-After") for answer in answers[-5:]} == {"30"}
            assert {answer.status_code for answer in answers} == {200, 503}
            ready = requests.get(f"{another.url}/readyz", timeout=5)
            assert ready.status_code == 503
            assert ready.json()["status"].startswith("not ready: neither PostgreSQL nor the spool")
        accepted = [
            body for body, answer in zip(bodies, answers, strict=True) if answer.status_code == 200
        ]
        assert len(accepted) > 10
        until(lambda: drained(another))
        assert [row["body"] for row in landed(bodies)] == accepted
        assert post(another, bodies[-1]).status_code == 200
        assert requests.get(f"{another.url}/readyz", timeout=5).status_code == 200
