"""The worker's own HTTP server: ``/metrics`` for Prometheus, ``/healthz`` for a supervisor."""

import socket
import threading
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING
from wsgiref.simple_server import WSGIRequestHandler, make_server

from prometheus_client import make_wsgi_app
from prometheus_client.exposition import ThreadingWSGIServer

from jobs.metrics import REGISTRY
from stageline.errors import StagelineError

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment


_HANGS = ("503 Service Unavailable", b"The worker makes no progress.\n")


class _Handler(WSGIRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name in its base
        """Nothing: scrapes are no news."""


def start(host: str, port: int, is_alive: Callable[[], bool]) -> int:
    """Serves in threads of its own until the process ends.

    Args:
        host, port: Where; with port 0, wherever there is room.
        is_alive: Whether the worker makes progress; the database may be away meanwhile.

    Returns:
        The port.

    Raises:
        StagelineError: the address cannot be had.
    """
    numbers: WSGIApplication = make_wsgi_app(REGISTRY)

    def app(environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        match environ["PATH_INFO"]:
            case "/metrics":
                return numbers(environ, start_response)
            case "/healthz":
                status, said = ("200 OK", b"alive\n") if is_alive() else _HANGS
            case _:
                status, said = "404 Not Found", b"There are /metrics and /healthz.\n"
        start_response(status, [("Content-Type", "text/plain; charset=utf-8")])
        return [said]

    class Server(ThreadingWSGIServer):
        address_family = socket.AF_INET6 if ":" in host else socket.AF_INET

    try:
        server = make_server(host, port, app, Server, _Handler)
    except OSError as error:
        raise StagelineError(
            f"Cannot serve metrics on {host}, port {port}: {error.strerror}. Choose another port"
            " with --metrics-port or STAGELINE_WORKER_METRICS_PORT."
        ) from None
    threading.Thread(target=server.serve_forever, name="metrics", daemon=True).start()
    return server.server_port
