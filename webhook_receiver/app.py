"""The Flask app that CRMs post to: who is calling, the body whole, on a disk, and only then 200.

What is authentic is landed, whatever it looks like; what is not is refused, with a small record;
our own fault is 503 with Retry-After, so that the sender tries again.
"""

import ipaddress
import json
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache, partial
from typing import Any

from flask import Flask, Response, request
from limits import RateLimitItemPerSecond
from limits.storage import MemoryStorage
from limits.strategies import FixedWindowRateLimiter
from werkzeug.exceptions import HTTPException

from stageline.config import settings
from stageline.personal_data import frames
from stageline.progress import log
from webhook_receiver import intake, metrics
from webhook_receiver.accounts import Account, Accounts
from webhook_receiver.checks import Call, Refused, client_address, verify
from webhook_receiver.delivery import Delivery, ReadDelivery, read
from webhook_receiver.landing import Landing, LandingError
from webhook_receiver.raw_tables import Outcome
from webhook_receiver.refusals import Refusals
from webhook_receiver.senders import SENDERS
from webhook_receiver.spool import Spool, SpoolError

#: Seconds after which a sender is asked to try again.
RETRY_AFTER = 30


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
    endpoint = _Endpoint(landing, accounts, refusals)

    for sender in ("keycrm", "pipedrive", "hubspot"):
        app.add_url_rule(
            f"/webhooks/{sender}/<project>",
            sender,
            partial(endpoint.receive, sender),
            methods=["POST"],
        )

    @app.post("/webhooks/keycrm")
    def of_keycrm() -> Response:
        return endpoint.receive("keycrm", request.args.get("project"))

    @app.post("/api/integrations/pipedrive/final-stage")
    def of_zapier() -> Response:
        return endpoint.receive("zapier", request.args.get("project"))

    @app.get("/healthz")
    def healthz() -> Response:
        return _answer(200, {"status": "alive"})

    @app.get("/readyz")
    def readyz() -> Response:
        return _readiness(landing, accounts, spool)

    @app.get("/metrics")
    def numbers() -> Response:
        if not _may_read_metrics():
            return _answer(403, {"error": "metrics are not for this address"})
        return Response(
            metrics.exposition(spool, landing.trouble), content_type="text/plain; version=0.0.4"
        )

    @app.errorhandler(HTTPException)
    def not_found(error: HTTPException) -> Response:
        answer = _answer(error.code or 500, {"error": error.name.lower()})
        for name, value in error.get_headers(request.environ):
            if name == "Allow":
                answer.headers[name] = value
        return answer

    @app.errorhandler(Exception)
    def our_fault(error: Exception) -> Response:
        # Where, but not the error's own words: they may quote what was sent.
        where = frames(error.__traceback__)
        log().error("request failed", error=type(error).__name__, at=where)
        return _try_again()

    return app


class _Endpoint:
    """What all senders' endpoints have in common."""

    def __init__(self, landing: Landing, accounts: Accounts, refusals: Refusals) -> None:
        self._landing = landing
        self._accounts = accounts
        self._refusals = refusals
        self._limiter = FixedWindowRateLimiter(MemoryStorage())
        self._rate = RateLimitItemPerSecond(settings().receiver_rate)

    def receive(self, sender: str, project: str | None) -> Response:
        """Takes one request to its end: 200 once it is on a disk, or why not."""
        started = time.monotonic()
        metrics.of(metrics.RECEIVED, sender).inc()
        environ = request.environ
        address = client_address(
            environ.get("REMOTE_ADDR", ""),
            environ.get("HTTP_X_FORWARDED_FOR"),
            settings().receiver_trusted_proxies,
        )
        body: bytes | None = None
        try:
            body = intake.body(environ, settings().receiver_body_limit)
            delivery = self._authentic(sender, project, _call(environ, address, body))
        except Refused as refused:
            return self._refuse(refused, sender, project, address, body)
        if delivery is None:
            return _try_again()  # nobody can be told from anybody else
        found = read(delivery)
        try:
            outcome = self._landing.land(found)
        except LandingError:
            log().error("not landed", sender=sender, project=delivery.project_id, bytes=len(body))
            return _try_again()
        _tell(found, outcome, time.monotonic() - started)
        return _answer(200, {"status": "accepted", "delivery_id": str(found.delivery_id)})

    def _authentic(self, sender: str, project_id: str | None, call: Call) -> Delivery | None:
        if not self._accounts.are_known:
            return None
        account = self._accounts.find(sender, project_id)
        if account is None:
            raise Refused(404, "unknown_project" if project_id else "project_missing")
        if account.checks is None:
            return None
        check_ids = verify(account.checks, call)
        if SENDERS[sender].retries_429 and self._is_too_much(account):
            raise Refused(429, "too_many_requests")
        return Delivery(
            sender,
            account.project_id,
            call.now,
            check_ids,
            intake.kept(call.headers),
            call.body,
            account.time_zone,
        )

    def _is_too_much(self, account: Account) -> bool:
        try:
            return not self._limiter.hit(self._rate, account.sender, account.project_id)
        except Exception as error:  # noqa: BLE001 - without its limiter the receiver takes everything
            log().error("rate limiter failed", error=type(error).__name__)
            return False

    def _refuse(
        self,
        refused: Refused,
        sender: str,
        project_id: str | None,
        address: str | None,
        body: bytes | None,
    ) -> Response:
        # The project is whatever stood in the URL.
        project = project_id.replace("\0", "")[:100] if project_id else None
        metrics.of(metrics.REFUSED, sender, refused.reason).inc()
        self._refusals.note(refused.reason, sender, project, address, body)
        log().warning(
            "refused",
            sender=sender,
            project=project,
            reason=refused.reason,
            status=refused.status,
            address=address,
            bytes=None if body is None else len(body),
        )
        answer = _answer(refused.status, {"error": refused.reason.replace("_", " ")})
        if refused.status == 429:
            answer.headers["Retry-After"] = "1"
        elif refused.status == 401:
            answer.headers["WWW-Authenticate"] = 'Basic realm="stageline"'
        return answer


def _call(environ: Mapping[str, Any], address: str | None, body: bytes) -> Call:
    return Call(
        method=environ["REQUEST_METHOD"],
        url=_public_url() + environ["RAW_URI"],
        headers=intake.Headers(environ),
        query_token=intake.token(environ.get("QUERY_STRING", "")),
        body=body,
        address=address,
        now=datetime.now(UTC),
    )


@cache
def _public_url() -> str:
    """The receiver's address as senders know it, without a slash at the end."""
    own = f"http://{settings().receiver_host}:{settings().receiver_port}"
    return (settings().receiver_public_url or own).rstrip("/")


def _tell(found: ReadDelivery, outcome: Outcome, seconds: float) -> None:
    """Counts and logs a delivery that has landed."""
    delivery, parsed = found.delivery, found.parsed
    metrics.of(metrics.LANDED, delivery.sender, delivery.project_id, outcome.value).inc()
    metrics.of(metrics.SECONDS, delivery.sender).observe(seconds)
    if outcome is not Outcome.DUPLICATE:
        if parsed.unparsed_reason is not None:
            metrics.of(metrics.UNPARSED, delivery.sender, delivery.project_id).inc()
        if parsed.stage_events:
            newest = max(event.entered_at for event in parsed.stage_events)
            metrics.of(metrics.LAG, delivery.sender).observe(
                max(0.0, (delivery.received_at - newest).total_seconds())
            )
    log().info(
        "delivery",
        delivery_id=str(found.delivery_id),
        sender=delivery.sender,
        project=delivery.project_id,
        outcome=outcome.value,
        bytes=len(delivery.body),
        stage_events=len(parsed.stage_events),
        unparsed=parsed.unparsed_reason,
        seconds=round(seconds, 4),
    )


def _readiness(landing: Landing, accounts: Accounts, spool: Spool) -> Response:
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
    return _answer(200 if said["status"] == "ready" else 503, said)


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


def _try_again() -> Response:
    answer = _answer(503, {"error": "not stored, please send it again"})
    answer.headers["Retry-After"] = str(RETRY_AFTER)
    return answer


def _answer(status: int, content: Mapping[str, Any]) -> Response:
    return Response(json.dumps(content) + "\n", status=status, content_type="application/json")
