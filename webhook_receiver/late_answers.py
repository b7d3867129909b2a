"""A gunicorn worker whose app may give the answer to a delivery later, from another thread."""

import re
import socket
import threading
from collections.abc import Iterable
from concurrent.futures import Future
from functools import partial
from typing import Any, NamedTuple

from gunicorn.http import wsgi
from gunicorn.workers.gthread import TConn, ThreadWorker

from stageline.personal_data import frames
from stageline.progress import log
from webhook_receiver.plain_urls import addressee

#: Name in the WSGI environment of the function that takes an answer later: status line, headers
#: and body. It is to be called once, in whichever thread, and neither fails nor waits.
GIVE = "stageline.give"

#: What an app returns that has read its request to the end, and gives the answer later.
LATER: list[bytes] = []

#: Most bytes of a request that is handled without a thread of its own.
_SMALL = 64 * 1024

_LENGTH = re.compile(rb"\r\ncontent-length: *([0-9]{1,6})\r\n")


class _Given(NamedTuple):
    """An answer on its way to the main loop."""

    conn: TConn
    response: Any
    status: str
    headers: Iterable[tuple[str, str]]
    body: bytes


class LateAnswers(ThreadWorker):  # type: ignore[misc]  # gunicorn carries no types
    """gunicorn's threaded worker, but that no thread waits while a delivery is written.

    Threads that wait are dear: each has to be woken, and then waits for the interpreter. Here a
    delivery that has arrived whole is handled in the main loop, which sends the answers, too, all
    those together that one commit brings. Threads are for what may wait: slow senders, large
    bodies, everything that is no delivery.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._given: list[_Given] = []
        self._giving = threading.Lock()

    def enqueue_req(self, conn: TConn) -> None:
        if _is_whole_delivery(conn):
            self._finish(conn, self.handle(conn))
        else:
            super().enqueue_req(conn)

    def handle_request(self, req: Any, conn: TConn) -> Any:
        response, environ = wsgi.create(req, conn.sock, conn.client, conn.server, self.cfg)
        environ["wsgi.multithread"] = True
        environ[GIVE] = partial(self._give, conn, response)
        if not self.alive or len(self.keepalived_conns) >= self.max_keepalived:
            response.force_close()
        content = self.wsgi(environ, response.start_response)
        if content is LATER:
            return LATER
        try:
            for piece in content:
                response.write(piece)
            response.close()
        finally:
            if hasattr(content, "close"):
                content.close()
        return not response.should_close()

    def _keepalive_after(self, conn: TConn, keepalive: Any) -> Any:
        # The next request may be under way already.
        return LATER if keepalive is LATER else super()._keepalive_after(conn, keepalive)

    def finish_request(self, conn: TConn, fs: "Future[Any]") -> None:
        if fs.cancelled() or fs.result() is not LATER:
            super().finish_request(conn, fs)

    def _finish(self, conn: TConn, result: Any) -> None:
        finished: Future[Any] = Future()
        finished.set_result(result)
        self.finish_request(conn, finished)

    def _give(
        self,
        conn: TConn,
        response: Any,
        status: str,
        headers: Iterable[tuple[str, str]],
        body: bytes,
    ) -> None:
        with self._giving:
            self._given.append(_Given(conn, response, status, headers, body))
            is_first = len(self._given) == 1
        if is_first:
            self.method_queue.defer(self._send_given)

    def _send_given(self) -> None:
        """Sends the answers that were given since the last time; in the main loop."""
        with self._giving:
            given, self._given = self._given, []
        for each in given:
            try:
                stays_open = _send(each)
            except OSError:
                stays_open = False  # who sent it is gone
            except Exception as error:  # noqa: BLE001 - the others are to have their answers
                log().error(
                    "not answered", error=type(error).__name__, at=frames(error.__traceback__)
                )
                stays_open = False
            self._finish(each.conn, stays_open)


def _is_whole_delivery(conn: TConn) -> bool:
    """Whether a delivery has come to its last byte, so that reading it waits for nobody."""
    if conn.parser is not None and conn.parser.unreader.buf.getvalue():
        return False  # it began with the bytes of the request before
    try:
        seen = conn.sock.recv(_SMALL, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except OSError:
        return False
    head, end, body = seen.partition(b"\r\n\r\n")
    method, _, rest = head.partition(b" ")
    target = rest.partition(b" ")[0].decode("latin-1")
    if not end or method != b"POST" or addressee(target) is None:
        return False
    head = head.lower() + b"\r\n"
    length = _LENGTH.search(head)
    return (
        length is not None
        and head.count(b"content-length") == 1
        and b"transfer-encoding" not in head
        and len(body) >= int(length[1])
    )


def _send(given: _Given) -> bool:
    """Sends an answer at once.

    Returns:
        Whether the connection can take the next request.

    Raises:
        OSError: the sender is gone, or has left so many answers unread that there is no room.
    """
    response = given.response
    response.start_response(given.status, given.headers)
    head = response.default_headers()
    head.extend(f"{name}: {value}\r\n" for name, value in response.headers)
    answer = "".join([*head, "\r\n"]).encode("latin-1") + given.body
    if given.conn.sock.send(answer, socket.MSG_DONTWAIT) < len(answer):
        raise BlockingIOError
    return not response.should_close()
