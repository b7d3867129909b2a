"""What all fake CRMs share: a threaded HTTP server that records its calls and can misbehave."""

import json
import re
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal, Self
from urllib.parse import parse_qsl, urlsplit

#: The token of every fake account, until it is changed.
TOKEN = "right-token"

#: The wall that stands before an API for those who ignore 429 (contract pipedrive 1.9).
WALL = b"<!DOCTYPE html><html><head><title>Attention Required! | Cloudflare</title></head></html>"


@dataclass(frozen=True)
class Call:
    """A request that came in.

    Attributes:
        at: When, by ``time.monotonic``.
        headers: By name in lower case.
        body: What was posted: JSON, or the fields of a form.
    """

    at: float
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: Any = None


@dataclass(frozen=True)
class Reply:
    """An answer.

    Attributes:
        body: Bytes go out as they are, all else as JSON.
        wait: Seconds before anything goes out.
        trickle: Seconds between the bytes of the body.
        breaks: Where the connection is cut.
    """

    status: int = 200
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    wait: float = 0.0
    trickle: float = 0.0
    breaks: Literal["at once", "within the body"] | None = None


class Gate:
    """Holds calls of a path until it is opened."""

    def __init__(self, path: str) -> None:
        self.path = re.compile(path)
        self._reached = threading.Semaphore(0)
        self._opened = threading.Event()

    def hold(self) -> None:
        """Keeps a call waiting."""
        self._reached.release()
        self._opened.wait(30)

    def await_call(self) -> None:
        """Returns once another call waits."""
        assert self._reached.acquire(timeout=20), f"nobody called {self.path.pattern}"

    def open(self) -> None:
        """Lets all calls through from now on."""
        self._opened.set()


@dataclass(frozen=True)
class Limit:
    """At most ``calls`` in any span of ``seconds``; those beyond it are answered with 429."""

    calls: int
    seconds: float


class CrmServer:
    """A fake CRM; a context manager. What it knows and how it answers is for its subclasses.

    Attributes:
        port: Where it is to listen; 0 = anywhere.
        token: The token that opens it.
        limit: What it allows; None = everything.
        usual_limit: What it allows by its contract.
        calls: All calls, in the order in which they came.
        account_id: What the CRM calls the account itself.
    """

    port = 0
    usual_limit: Limit | None = None

    def __init__(self, limit: Limit | None = None) -> None:
        self.token, self.limit = TOKEN, limit
        self.account_id = "4711"
        self.calls: list[Call] = []
        self._granted: dict[str, list[float]] = {}
        self._scripted: list[tuple[re.Pattern[str], Reply]] = []
        self._gates: list[Gate] = []
        self._lock = threading.Lock()
        self._http = _Http(("127.0.0.1", self.port), _handler_of(self))

    def __enter__(self) -> Self:
        threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        for gate in self._gates:
            gate.open()
        self._http.shutdown()
        self._http.server_close()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._http.server_address[1]}"

    @property
    def base_url(self) -> str:
        """What an account's base URL is."""
        return self.url

    def be_still(self) -> None:
        """Nothing changes from now on: what is slow to answer may be got ready."""

    def next(self, *replies: Reply, path: str = "") -> None:
        """Answers the next calls whose path matches with these replies, instead of the truth."""
        with self._lock:
            self._scripted += [(re.compile(path), reply) for reply in replies]

    @contextmanager
    def holding(self, path: str) -> Iterator[Gate]:
        """Keeps calls of the path waiting until the gate is opened, or the block ends."""
        gate = Gate(path)
        with self._lock:
            self._gates.append(gate)
        try:
            yield gate
        finally:
            with self._lock:
                self._gates.remove(gate)
            gate.open()

    def calls_of(self, path: str) -> list[Call]:
        """The calls so far whose path matches."""
        return [call for call in self.calls if re.search(path, call.path)]

    def busiest(self, seconds: float) -> int:
        """Most calls that came in any span of so many seconds."""
        moments = sorted(call.at for call in self.calls)
        return max(
            (sum(1 for at in moments if start <= at < start + seconds) for start in moments),
            default=0,
        )

    def handle(self, call: Call) -> Reply:
        """The answer to a call, after recording it."""
        with self._lock:
            self.calls.append(call)
            gates = [gate for gate in self._gates if gate.path.search(call.path)]
        for gate in gates:
            gate.hold()
        with self._lock:
            for index, (path, reply) in enumerate(self._scripted):
                if path.search(call.path):
                    del self._scripted[index]
                    return reply
            if not self.is_authentic(call):
                return self.unauthentic()
            kind, limit = self.limit_of(call)
            if limit is not None:
                start = call.at - limit.seconds
                granted = [at for at in self._granted.get(kind, ()) if at > start]
                self._granted[kind] = granted
                if len(granted) >= limit.calls:
                    return self.over_limit(granted[0] - start, kind)
                granted.append(call.at)
            return self.answer(call)

    def keep_limits(self) -> None:
        """Keeps to what its contract allows the smallest plan, from now on."""
        self.limit = self.usual_limit

    def limit_of(self, call: Call) -> tuple[str, Limit | None]:
        """What kind of call it is, and what is allowed of that kind."""
        del call  # all are of one kind
        return "", self.limit

    def is_authentic(self, call: Call) -> bool:
        """Whether the call holds the token, where this CRM wants it."""
        raise NotImplementedError

    def unauthentic(self) -> Reply:
        """The answer to a wrong token."""
        raise NotImplementedError

    def over_limit(self, wait: float, kind: str) -> Reply:
        """The answer above the limit of a kind of call, which will be over in ``wait`` seconds."""
        raise NotImplementedError

    def answer(self, call: Call) -> Reply:
        """The answer by the truth. No two are made at a time."""
        raise NotImplementedError


class _Http(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Nothing: clients that were killed are part of the tests."""


def _pause(seconds: float) -> None:
    if seconds:  # to sleep for no time at all waits for a turn of the processor all the same
        time.sleep(seconds)


def _handler_of(server: CrmServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True  # or each body waits 40 ms for its header to be confirmed

        def do_GET(self) -> None:
            self._answer(None)

        def do_POST(self) -> None:
            posted = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            is_form = "form" in (self.headers.get("Content-Type") or "")
            self._answer(dict(parse_qsl(posted.decode())) if is_form else json.loads(posted))

        def _answer(self, body: Any) -> None:
            at = time.monotonic()
            parts = urlsplit(self.path)
            headers = {name.lower(): value for name, value in self.headers.items()}
            query = dict(parse_qsl(parts.query))
            self._send(server.handle(Call(at, parts.path, query, headers, body)))

        def _send(self, reply: Reply) -> None:
            _pause(reply.wait)
            if reply.breaks == "at once":
                self._cut()
                return
            is_bytes = isinstance(reply.body, bytes)
            body = reply.body if is_bytes else json.dumps(reply.body).encode()
            self.send_response(reply.status)
            kind = "text/html" if body[:1] == b"<" else "application/json"
            for name, value in {
                "Content-Type": kind,
                "Content-Length": str(len(body)),
                **reply.headers,
            }.items():
                self.send_header(name, value)
            self.end_headers()
            if reply.breaks == "within the body":
                self.wfile.write(body[: len(body) // 2])
                self._cut()
                return
            step = 1 if reply.trickle else len(body) or 1
            for start in range(0, len(body), step):
                self.wfile.write(body[start : start + step])
                _pause(reply.trickle)

        def _cut(self) -> None:
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - its name there
            """Nothing: the calls are recorded."""

    return Handler
