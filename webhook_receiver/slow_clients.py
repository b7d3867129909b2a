"""A gunicorn worker that slow or silent senders cannot hold for long."""

import selectors
import socket
import threading
import time
import weakref
from functools import partial
from typing import Any

from gunicorn.http.errors import InvalidHeader, UnsupportedTransferCoding
from gunicorn.workers.gthread import TConn

from stageline.config import settings
from webhook_receiver.late_answers import LateAnswers

#: Seconds between two looks at the requests under way.
_INTERVAL = 0.25

#: Seconds that the other end has to close a connection that is over.
_LEAVE = 2.0

#: Connections whose sender took too long; the app answers 408 there.
_late: "weakref.WeakSet[socket.socket]" = weakref.WeakSet()


def was_late(connection: socket.socket) -> bool:
    """Whether the sender at the other end was cut off because it took too long."""
    return connection in _late


class Worker(LateAnswers):
    """A worker with a deadline for each request.

    A connection takes a thread only once its first bytes are there. From then on its sender has
    ``STAGELINE_RECEIVER_DEADLINE`` seconds for headers and body together, however few bytes it
    sends at a time; after that, reading ends as if the sender had hung up.

    A connection that is over waits for the other end among the idle ones. gunicorn waits for it in
    its main loop, in which nobody else is served meanwhile.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._under_way: dict[object, tuple[TConn, float]] = {}
        self._leaving: dict[TConn, float] = {}
        self._lock = threading.Lock()

    def init_process(self) -> None:
        threading.Thread(target=self._watch, name="stageline-deadlines", daemon=True).start()
        super().init_process()

    def enqueue_req(self, conn: TConn) -> None:
        if conn.initialized or conn.data_ready:
            super().enqueue_req(conn)
            return
        conn.close = partial(self._close, conn)
        conn.sock.setblocking(False)
        conn.timeout = time.monotonic() + settings().receiver_deadline
        self.pending_conns.append(conn)
        self.poller.register(
            conn.sock, selectors.EVENT_READ, partial(self.on_pending_socket_readable, conn)
        )

    def handle(self, conn: TConn) -> Any:
        request = object()  # the connection's next one may begin before this call returns
        with self._lock:
            self._under_way[request] = conn, time.monotonic() + settings().receiver_deadline
        try:
            return super().handle(conn)
        finally:
            with self._lock:
                del self._under_way[request]

    def handle_error(self, req: Any, client: Any, addr: Any, exc: Exception) -> None:
        if isinstance(exc, UnsupportedTransferCoding):
            # 400 instead of 501: no sender is to try again what will never be right.
            exc = InvalidHeader("TRANSFER-ENCODING")
        super().handle_error(req, client, addr, exc)

    def is_parent_alive(self) -> bool:
        if super().is_parent_alive():
            return True
        self.alive = False  # answers close their connections, so that the address is free soon
        return False

    def murder_pending(self) -> None:
        super().murder_pending()
        now = time.monotonic()
        for conn in [conn for conn, deadline in self._leaving.items() if deadline < now]:
            self._end(conn)

    def _cap_keepalive(self, deadline: float) -> None:
        super()._cap_keepalive(deadline)
        for conn in self.pending_conns:  # a worker that stops does not wait for silent ones longer
            conn.timeout = min(conn.timeout, deadline)

    def _close(self, conn: TConn, graceful: bool = False) -> None:
        if graceful:
            try:
                conn.sock.shutdown(socket.SHUT_WR)
            except OSError:
                pass  # the other end was faster
            else:
                conn.sock.setblocking(False)
                self.nr_conns += 1
                self._leaving[conn] = time.monotonic() + _LEAVE
                self.poller.register(
                    conn.sock, selectors.EVENT_READ, partial(self._on_leaving_readable, conn)
                )
                return
        conn.sock.close()

    def _on_leaving_readable(self, conn: TConn, client: socket.socket) -> None:
        # What still comes is read: closing over unread bytes would take back the answer.
        try:
            if client.recv(65536):
                return
        except BlockingIOError:
            return
        except OSError:
            pass  # it is gone
        self._end(conn)

    def _end(self, conn: TConn) -> None:
        del self._leaving[conn]
        self.poller.unregister(conn.sock)
        self.nr_conns -= 1
        conn.sock.close()

    def _watch(self) -> None:
        while True:
            time.sleep(_INTERVAL)
            now = time.monotonic()
            with self._lock:
                late = [conn for conn, deadline in self._under_way.values() if deadline < now]
            for conn in late:
                _late.add(conn.sock)
                try:
                    conn.sock.shutdown(socket.SHUT_RD)
                except OSError:
                    continue  # it is closed already
