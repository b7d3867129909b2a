"""Durably acknowledged events a second, beside an empty Flask endpoint that checks the same HMAC.

All run under the receiver's own gunicorn worker with the same settings, and take the same signed
KeyCRM bodies over 16 connections; the database keeps fsync on. An endpoint with one insert and one
commit a request shows what a plain receiver would reach, and a receiver that writes nothing how
much goes into writing. Rounds alternate, so that a busy machine is busy for all of them.

The files of the database's log are there before the clock runs, as in a database that has been at
work for a while: PostgreSQL writes over old ones then, where a new one stops every commit for some
50 ms.

Run it with `make bench`, or with other sizes: python benchmarks/receiver.py --seconds 5 --rounds 5
"""

import argparse
import base64
import hashlib
import hmac
import json
import os
import selectors
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CONNECTIONS = 16

#: Files of 16 MB; enough for all rounds.
WAL_FILES = 60
SECRET = "whsec_" + base64.b64encode(b"a secret of the benchmark only!!").decode()

#: Endpoint -> what it does, in the order in which they are shown.
ENDPOINTS = {
    "empty": "reads the body, parses it, checks the HMAC, answers",
    "insert": "the same, and one INSERT and COMMIT a request",
    "unwritten": "the receiver, but that it answers before it has written anything",
    "receiver": "the receiver",
}


def bodies() -> Iterator[bytes]:
    """KeyCRM deliveries of about 1 kB, each of another order."""
    number = int(time.time() * 1000) * 1000
    while True:
        number += 1
        yield json.dumps(
            {
                "event": "order.change_order_status",
                "context": {
                    "id": number,
                    "status_id": 20 + number % 7,
                    "status_group_id": 1 + number % 6,
                    "status_changed_at": "2026-02-11T08:30:05.000000Z",
                    "created_at": "2026-02-10T19:02:11.000000Z",
                    "updated_at": "2026-02-11T08:30:05.000000Z",
                    "payment_status": "part_paid",
                    "grand_total": "1250.00",
                    "manager_comment": "x" * 700,
                    "deleted_at": None,
                },
            }
        ).encode()


def requests_of(path: str, count: int) -> deque[bytes]:
    """Signed requests, made before the clock runs."""
    made: deque[bytes] = deque()
    key = base64.b64decode(SECRET.removeprefix("whsec_"))
    for body in bodies():
        message, stamp = f"msg-{time.time_ns()}-{len(made)}", str(int(time.time()))
        signed = hmac.digest(key, f"{message}.{stamp}.".encode() + body, "sha256")
        made.append(
            f"POST {path} HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\n"
            f"webhook-id: {message}\r\nwebhook-timestamp: {stamp}\r\n"
            f"webhook-signature: v1,{base64.b64encode(signed).decode()}\r\n"
            f"Content-Length: {len(body)}\r\n\r\n".encode()
            + body
        )
        if len(made) == count:
            return made
    return made


def drive(port: int, requests: deque[bytes], seconds: float, rate: float | None) -> dict[str, Any]:
    """Posts for ``seconds`` over 16 connections, each one request at a time.

    Args:
        rate: Requests a second in all, evenly spread; None for as many as there are answers to.

    Returns:
        ``rate`` (answers of 200 a second), ``failed`` (other answers) and ``p99`` (seconds).
    """
    chosen = selectors.DefaultSelector()
    idle: deque[socket.socket] = deque()
    for _ in range(CONNECTIONS):
        one = socket.create_connection(("127.0.0.1", port))
        one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        chosen.register(one, selectors.EVENT_READ)
        idle.append(one)
    begun: dict[socket.socket, float] = {}
    answers: dict[socket.socket, bytes] = {}
    latencies: list[float] = []
    failed = 0
    started = time.perf_counter()
    end, due = started + seconds, started
    while True:
        now = time.perf_counter()
        if now >= end and not begun:
            break
        while idle and now < end and requests and (rate is None or now >= due):
            one = idle.popleft()
            # With a rate, waiting for a free connection counts: senders do not wait politely.
            begun[one] = now if rate is None else due
            one.sendall(requests.popleft())
            if rate is not None:
                due += 1 / rate
        if now < end and not requests and rate is None:
            raise SystemExit("not enough requests were made: lower --seconds")
        timeout = 0.2 if rate is None or not idle else max(0.0, min(0.2, due - time.perf_counter()))
        for key, _ in chosen.select(timeout):
            one = key.fileobj
            answers[one] = answers.get(one, b"") + one.recv(4096)
            if not answers[one].endswith(b"}\n"):
                continue  # headers and body come one after the other
            answer = answers.pop(one)
            latencies.append(time.perf_counter() - begun.pop(one))
            if not answer.startswith(b"HTTP/1.1 200"):
                failed += 1
            idle.append(one)
    took = time.perf_counter() - started
    for key in list(chosen.get_map().values()):
        key.fileobj.close()
    return {
        "rate": (len(latencies) - failed) / took,
        "failed": failed,
        "p99": statistics.quantiles(latencies, n=100)[98],
    }


def baseline_app(name: str) -> Any:
    """The Flask app of an endpoint that is not the receiver."""
    import psycopg
    from flask import Flask, request

    from stageline.database import connection

    app = Flask(__name__)
    key = base64.b64decode(SECRET.removeprefix("whsec_"))
    sessions: dict[int, Any] = {}

    @app.post("/webhooks/keycrm/bench")
    def receive() -> Any:
        body = request.get_data()
        signed = f"{request.headers['webhook-id']}.{request.headers['webhook-timestamp']}.".encode()
        wanted = base64.b64encode(hmac.digest(key, signed + body, "sha256"))
        if not hmac.compare_digest(
            wanted, request.headers["webhook-signature"].removeprefix("v1,").encode()
        ):
            return {"error": "signature wrong"}, 401
        json.loads(body)
        if name == "insert":
            me = threading.get_ident()
            if me not in sessions:
                sessions[me] = psycopg.connect(**connection("owner").libpq(), autocommit=True)
            sessions[me].execute(
                "insert into bench.plain (id, body, sha256) values (%s, %s, %s)"
                " on conflict do nothing",
                (request.headers["webhook-id"], body, hashlib.sha256(body).digest()),
            )
        return {"status": "accepted"}

    return app


def serve_unwritten(port: int) -> None:
    """Runs a receiver that answers without writing: never to be run for anything else."""
    from stageline.cli import main as stageline
    from webhook_receiver.landing import Landing
    from webhook_receiver.raw_tables import Outcome

    Landing.land = lambda _self, _delivery, tell: tell(Outcome.STORED)
    stageline(["receiver", "--port", str(port)])


def serve_baseline(name: str, port: int) -> None:
    """Runs an endpoint that is not the receiver, under the same worker and settings."""
    from gunicorn.app.base import BaseApplication

    from stageline.config import settings

    class Application(BaseApplication):
        def load_config(self) -> None:
            for option, value in {
                "bind": f"127.0.0.1:{port}",
                "worker_class": "webhook_receiver.slow_clients.Worker",
                "workers": settings().receiver_workers,
                "threads": settings().receiver_threads,
                "keepalive": 5,
                "control_socket_disable": True,
                "errorlog": os.devnull,
            }.items():
                self.cfg.set(option, value)

        def load(self) -> Any:
            return baseline_app(name)

    Application().run()


@contextmanager
def serving(name: str, folder: Path) -> Iterator[int]:
    """The port of a running endpoint."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = int(probe.getsockname()[1])
    command = (
        ["-m", "stageline", "receiver", "--port", str(port)]
        if name == "receiver"
        else [__file__, "--serve", name, "--port", str(port)]
    )
    with (folder / f"{name}.log").open("a") as log:
        child = subprocess.Popen([sys.executable, *command], stdout=log, stderr=log)
    try:
        for _ in range(200):
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                break
            except OSError:
                time.sleep(0.05)
        time.sleep(1.5)  # both worker processes are up, and the first second's chores done
        yield port
    finally:
        child.send_signal(signal.SIGTERM)
        child.wait(30)


def prepare(folder: Path) -> None:
    """A database of its own with fsync on, and a project that signs."""
    from stageline import config, migrate, server
    from stageline.database import connect
    from stageline.settings import encryption, projects, webhook_checks

    os.environ |= {
        "STAGELINE_HOME": str(folder / "home"),
        "STAGELINE_ENV_FILE": str(folder / ".env"),
        "STAGELINE_SECRET_KEY": encryption.new_key(),
    }
    config.settings.cache_clear()
    server.start(config.settings().home, 56900)
    migrate.upgrade()
    projects.add("keycrm", "bench")
    webhook_checks.allow("keycrm", "bench", "hmac", secret=SECRET)
    with connect("owner") as session:
        session.execute("create schema bench")
        session.execute(
            "create table bench.plain (id text primary key, body bytea not null,"
            " sha256 bytea not null, received_at timestamptz not null default now())"
        )
    with server.superuser(config.settings().home) as session:
        session.execute("alter system set min_wal_size = '1GB'")
        session.execute("select pg_reload_conf()")
        for _ in range(WAL_FILES):
            session.execute("select pg_logical_emit_message(false, 'stageline', 'one more')")
            session.execute("select pg_switch_wal()")
        session.execute("checkpoint")


def measure(folder: Path, seconds: float, rounds: int) -> None:
    """Runs all endpoints in turn, and shows the figures."""
    path = "/webhooks/keycrm/bench"
    found: dict[str, list[float]] = {name: [] for name in ENDPOINTS}
    late: dict[str, list[float]] = {name: [] for name in ENDPOINTS}
    failed = 0
    for number in range(rounds):
        print(f"round {number + 1} of {rounds}", file=sys.stderr)
        for name in ENDPOINTS:
            with serving(name, folder) as port:
                drive(port, requests_of(path, 400), 0.3, 500)  # warm
                full = drive(port, requests_of(path, int(12000 * seconds)), seconds, None)
                found[name].append(full["rate"])
                failed += full["failed"]
    rate = statistics.median(found["receiver"]) / 2
    for _ in range(rounds):
        for name in ("empty", "receiver"):
            with serving(name, folder) as port:
                drive(port, requests_of(path, 400), 0.3, 500)
                half = drive(port, requests_of(path, int(rate * seconds) + 1), seconds, rate)
                late[name].append(half["p99"])
                failed += half["failed"]
    base = statistics.median(found["empty"])
    print(f"{'endpoint':<10} {'per second':>11} {'of empty':>9} {'p99 at half the load':>21}")
    for name, what in ENDPOINTS.items():
        rate = statistics.median(found[name])
        p99 = f"{statistics.median(late[name]) * 1000:.1f} ms" if late[name] else ""
        print(f"{name:<10} {rate:>11.0f} {rate / base:>9.2f} {p99:>21}  {what}")
    ratio = statistics.median(late["receiver"]) / statistics.median(late["empty"])
    print(f"p99 of the receiver over that of empty, both at half the receiver's load: {ratio:.1f}")
    print(f"answers other than 200: {failed}")


def main() -> None:
    """Reads the arguments, and cleans up in the end."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        if given.serve == "unwritten":
            serve_unwritten(given.port)
        else:
            serve_baseline(given.serve, given.port)
        return
    folder = Path(tempfile.mkdtemp(prefix="stageline-bench-", dir="/tmp"))
    folder.chmod(0o755)
    try:
        prepare(folder)
        measure(folder, given.seconds, given.rounds)
    finally:
        from stageline import server

        server.stop(folder / "home")
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
