"""A gunicorn worker that slow or silent senders cannot hold for long."""

import selectors
import socket
import threading
import time
import weakref
from functools import partial
from typing import Any

from gunicorn.workers.gthread import TConn, ThreadWorker

from stageline.config import settings

#: Seconds between two looks at the requests under way.
_INTERVAL = 0.25

#: Connections whose sender took too long; the app answers 408 there.
_late: "weakref.WeakSet[socket.socket]" = weakref.WeakSet()


def was_late(connection: socket.socket) -> bool:
    """Whether the sender at the other end was cut off because it took too long."""
    return connection in _late


class Worker(ThreadWorker):  # type: ignore[misc]  # gunicorn carries no types
    """gunicorn's threaded worker with a deadline for each request.

    A connection takes a thread only once its first bytes are there. From then on its sender has
    ``STAGELINE_RECEIVER_DEADLINE`` seconds for headers and body together, however few bytes it
    sends at a time; after that, reading ends as if the sender had hung up.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._deadlines: dict[TConn, float] = {}
        self._lock = threading.Lock()

    def init_process(self) -> None:
        threading.Thread(target=self._watch, name="stageline-deadlines", daemon=True).start()
        super().init_process()

    def enqueue_req(self, conn: TConn) -> None:
        if conn.initialized or conn.data_ready:
            super().enqueue_req(conn)
            return
        conn.sock.setblocking(False)
        conn.timeout = time.monotonic() + settings().receiver_deadline
        self.pending_conns.append(conn)
        self.poller.register(
            conn.sock, selectors.EVENT_READ, partial(self.on_pending_socket_readable, conn)
        )

    def handle(self, conn: TConn) -> Any:
        with self._lock:
            self._deadlines[conn] = time.monotonic() + settings().receiver_deadline
        try:
            return super().handle(conn)
        finally:
            with self._lock:
                del self._deadlines[conn]

    def _watch(self) -> None:
        while True:
            time.sleep(_INTERVAL)
            now = time.monotonic()
            with self._lock:
                late = [conn for conn, deadline in self._deadlines.items() if deadline < now]
            for conn in late:
                _late.add(conn.sock)
                try:
                    conn.sock.shutdown(socket.SHUT_RD)
                except OSError:
                    continue  # it is closed already
