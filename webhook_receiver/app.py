"""The Flask app that CRMs post to, and that says how it is.

Deliveries go past Flask where their URL is plain: finding the view and making its context costs as
much as reading and verifying a delivery.
"""

import ipaddress
import json
from collections.abc import Iterable
from concurrent.futures import Future
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from flask import Flask, Response, request
from werkzeug.exceptions import HTTPException

from stageline.config import settings
from webhook_receiver import metrics
from webhook_receiver.accounts import Accounts
from webhook_receiver.checks import client_address
from webhook_receiver.endpoint import Answer, Endpoint, our_fault
from webhook_receiver.landing import Landing
from webhook_receiver.late_answers import GIVE, LATER
from webhook_receiver.plain_urls import addressee
from webhook_receiver.refusals import Refusals
from webhook_receiver.spool import Spool, SpoolError

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication


def create_app(landing: Landing, accounts: Accounts, spool: Spool, refusals: Refusals) -> Flask:
    """The app of one worker process.

    Args:
        landing: Brings deliveries to disk.
        accounts: Who may send.
        spool: The spool that ``landing`` uses, to tell what waits in it.
        refusals: Where refused requests are noted.
    """
    app = Flask(__name__, static_folder=None)
    app.url_map.strict_slashes = False  # Pipedrive does not follow redirects
    app.url_map.merge_slashes = False
    endpoint = Endpoint(landing, accounts, refusals)

    @app.post("/webhooks/<any(keycrm, pipedrive, hubspot):sender>/<project>")
    def of_a_project(sender: str, project: str) -> Response:
        return _waited(endpoint, sender, project)

    @app.post("/webhooks/keycrm")
    def of_keycrm() -> Response:
        project = request.args.get("project")
        return _waited(endpoint, "keycrm", project)

    @app.post("/api/integrations/pipedrive/final-stage")
    def of_zapier() -> Response:
        project = request.args.get("project")
        return _waited(endpoint, "zapier", project)

    @app.get("/healthz")
    def healthz() -> Response:
        return _response(Answer(200, {"status": "alive"}))

    @app.get("/readyz")
    def readyz() -> Response:
        return _response(_readiness(landing, accounts, spool))

    @app.get("/metrics")
    def numbers() -> Response:
        if not _may_read_metrics():
            return _response(Answer(403, {"error": "metrics are not for this address"}))
        return Response(
            metrics.exposition(spool, landing.trouble), content_type="text/plain; version=0.0.4"
        )

    @app.errorhandler(HTTPException)
    def not_found(error: HTTPException) -> Response:
        allowed = [each for each in error.get_headers(request.environ) if each[0] == "Allow"]
        return _response(Answer(error.code or 500, {"error": error.name.lower()}, tuple(allowed)))

    @app.errorhandler(Exception)
    def failed(error: Exception) -> Response:
        return _response(our_fault(error))

    app.wsgi_app = _Shortcut(app.wsgi_app, endpoint)  # type: ignore[method-assign]
    return app


class _Shortcut:
    """Takes deliveries whose URL is plain, and leaves everything else to Flask."""

    def __init__(self, flask: "WSGIApplication", endpoint: Endpoint) -> None:
        self._flask = flask
        self._endpoint = endpoint

    def __call__(self, environ: dict[str, Any], start_response: "StartResponse") -> Iterable[bytes]:
        plain = addressee(environ["RAW_URI"])
        give = environ.get(GIVE)
        if plain is None or environ["REQUEST_METHOD"] != "POST" or give is None:
            return self._flask(environ, start_response)
        answer = self._endpoint.receive(environ, *plain, lambda answer: give(*_in_http(answer)))
        if answer is None:
            return LATER
        status, headers, body = _in_http(answer)
        start_response(status, headers)
        return (body,)


def _waited(endpoint: Endpoint, sender: str, project: str | None) -> Response:
    """The answer to the delivery at hand, once there is one."""
    later: Future[Answer] = Future()
    answer = endpoint.receive(request.environ, sender, project, later.set_result)
    return _response(answer or later.result())


def _in_http(answer: Answer) -> tuple[str, list[tuple[str, str]], bytes]:
    """The status line, the headers and the body of ``answer``."""
    body = json.dumps(answer.content).encode() + b"\n"
    headers = [
        ("Content-Type", "application/json"),
        ("Content-Length", str(len(body))),
        *answer.headers,
    ]
    return f"{answer.status} {HTTPStatus(answer.status).phrase}", headers, body


def _response(answer: Answer) -> Response:
    status, headers, body = _in_http(answer)
    return Response(body, status, headers)


def _readiness(landing: Landing, accounts: Accounts, spool: Spool) -> Answer:
    """Ready means: what is posted now will be safe, in PostgreSQL or in the spool."""
    said: dict[str, Any] = {
        "status": "ready",
        "postgres": "up" if landing.trouble is None else f"away: {landing.trouble}",
    }
    try:
        said["spooled"], oldest = spool.waiting()
        said["spooled_since"] = oldest.isoformat() if oldest else None
        spool.check_writable()
        is_safe = True
    except SpoolError:
        said["spool"] = "cannot be written"
        is_safe = landing.trouble is None
    if not accounts.are_known:
        said["status"] = "not ready: it is not known yet who may send"
    elif not is_safe:
        said["status"] = "not ready: neither PostgreSQL nor the spool can be written"
    return Answer(200 if said["status"] == "ready" else 503, said)


def _may_read_metrics() -> bool:
    """Whether both who is connected and, if that is a proxy, who it speaks for are allowed to."""
    peer = request.environ.get("REMOTE_ADDR", "")
    forwarded_for = request.environ.get("HTTP_X_FORWARDED_FOR")
    proxies = settings().receiver_trusted_proxies if forwarded_for is not None else 0
    readers = {client_address(peer, forwarded_for, count) for count in (0, proxies)}
    try:
        networks = [
            ipaddress.ip_network(network.strip())
            for network in settings().receiver_metrics_from.split(",")
        ]
    except ValueError:
        return False
    return all(
        reader is not None and any(ipaddress.ip_address(reader) in each for each in networks)
        for reader in readers
    )
