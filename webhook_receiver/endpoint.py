"""What all senders' endpoints do: who is calling, the body whole, on a disk, and only then 200.

What is authentic is landed, whatever it looks like; what is not is refused, with a small record;
our own fault is 503 with Retry-After, so that the sender tries again.
"""

import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import cache
from typing import Any, NamedTuple

from limits import RateLimitItemPerSecond
from limits.storage import MemoryStorage
from limits.strategies import FixedWindowRateLimiter

from stageline.config import settings
from stageline.personal_data import frames
from stageline.progress import log
from webhook_receiver import intake, metrics
from webhook_receiver.accounts import Account, Accounts
from webhook_receiver.checks import Call, Refused, client_address, verify
from webhook_receiver.delivery import Delivery, ReadDelivery, read
from webhook_receiver.landing import Landing
from webhook_receiver.raw_tables import Outcome
from webhook_receiver.refusals import Refusals
from webhook_receiver.senders import SENDERS


class Answer(NamedTuple):
    """What a sender is told: an HTTP status, an object for its JSON body, and further headers."""

    status: int
    content: Mapping[str, Any]
    headers: tuple[tuple[str, str], ...] = ()


#: Our own fault; the sender is asked to come again after so many seconds.
TRY_AGAIN = Answer(503, {"error": "not stored, please send it again"}, (("Retry-After", "30"),))


#: Takes the answer to a request to its sender.
Give = Callable[[Answer], None]

_MORE_HEADERS = {
    401: (("WWW-Authenticate", 'Basic realm="stageline"'),),
    429: (("Retry-After", "1"),),
}


class Endpoint:
    """Takes the requests of all senders.

    Args:
        landing: Brings deliveries to disk.
        accounts: Who may send.
        refusals: Where refused requests are noted.
    """

    def __init__(self, landing: Landing, accounts: Accounts, refusals: Refusals) -> None:
        self._landing = landing
        self._accounts = accounts
        self._refusals = refusals
        self._limiter = FixedWindowRateLimiter(MemoryStorage())
        self._rate = RateLimitItemPerSecond(settings().receiver_rate)

    def receive(
        self, environ: Mapping[str, Any], sender: str, project: str | None, give: Give
    ) -> Answer | None:
        """Takes one request to its end: 200 once it is on a disk, or why not. Never fails.

        Args:
            environ: The request, as WSGI means it.
            sender: Whose endpoint was called.
            project: The project that the URL names, if any.
            give: Called once, in another thread, with an answer that is not there yet. It may
                neither fail nor wait.

        Returns:
            The answer; None where ``give`` is called with it.
        """
        try:
            return self._received(environ, sender, project, give)
        except Exception as error:  # noqa: BLE001 - whatever it is, the sender is to come again
            return our_fault(error)

    def _received(
        self, environ: Mapping[str, Any], sender: str, project: str | None, give: Give
    ) -> Answer | None:
        started = time.monotonic()
        metrics.of(metrics.RECEIVED, sender).inc()
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
            return TRY_AGAIN  # nobody can be told from anybody else
        found = read(delivery)

        def told(outcome: Outcome | None) -> None:
            try:
                answer = _landed(found, outcome, time.monotonic() - started)
            except Exception as error:  # noqa: BLE001 - as above
                answer = our_fault(error)
            give(answer)

        self._landing.land(found, told)
        return None

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
    ) -> Answer:
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
        content = {"error": refused.reason.replace("_", " ")}
        return Answer(refused.status, content, _MORE_HEADERS.get(refused.status, ()))


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


def _landed(found: ReadDelivery, outcome: Outcome | None, seconds: float) -> Answer:
    """The answer to a delivery that was to land, counted and logged."""
    delivery, parsed = found.delivery, found.parsed
    if outcome is None:
        log().error(
            "not landed",
            sender=delivery.sender,
            project=delivery.project_id,
            bytes=len(delivery.body),
        )
        return TRY_AGAIN
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
    return Answer(200, {"status": "accepted", "delivery_id": str(found.delivery_id)})


def our_fault(error: Exception) -> Answer:
    """What a sender is told when we have failed; where is logged, but not what the error says."""
    log().error("request failed", error=type(error).__name__, at=frames(error.__traceback__))
    return TRY_AGAIN
