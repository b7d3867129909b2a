"""Whether a call comes from whom it says: every kind of check, without Flask or a database.

Standard Webhooks signatures are verified by hand, because that specification's own Python library
answers malformed headers with errors of many types, and a receiver that misses one of them answers
500 to junk. Here whatever a caller sends ends in a tuple of ids, or in `Refused`.
"""

import base64
import hmac
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from stageline.settings.webhook_checks import OPEN_KINDS, Kind, is_valid, signing_key

#: How far a signed timestamp may lie from the receiver's clock, either way.
TOLERANCE_SECONDS = 300

#: What a Standard Webhooks caller may make the receiver compare.
MOST_SIGNATURES = 10
LONGEST_SIGNATURE_HEADER = 4096


class Refused(Exception):  # noqa: N818 - an answer, not a fault
    """A call that is not let in.

    Attributes:
        status: HTTP status of the answer; of `verify` 401, and 403 for an address.
        reason: One fixed word, for counters and records; never anything that the caller sent.
    """

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


@dataclass(frozen=True)
class Check:
    """One secret, address range or user agent that is allowed, ready for use.

    Attributes:
        check_id, kind: As in ``settings.webhook_checks``.
        secret: The secret as it was given, in UTF-8; None for an address or user agent.
        allowed: The address range or beginning of the user agent; None for a secret.
        valid_from, valid_to: From, inclusive, and until, exclusive; None = no end.
        key: Bytes that an ``hmac`` check signs with, made of ``secret``.
        network: What ``allowed`` of an ``address`` check says.

    Raises:
        StagelineError: a signing secret cannot be read.
        ValueError: there is no secret, or nothing allowed.
    """

    check_id: int
    kind: Kind
    secret: bytes | None = field(repr=False)
    allowed: str | None
    valid_from: datetime
    valid_to: datetime | None
    key: bytes = field(init=False, repr=False)
    network: IPv4Network | IPv6Network | None = field(init=False, repr=False)

    def __post_init__(self) -> None:
        has_secret = self.kind not in OPEN_KINDS
        if not (self.secret if has_secret else self.allowed):
            raise ValueError(f"check {self.check_id} is empty: it would let everyone in")
        secret = self.secret or b""
        object.__setattr__(self, "key", signing_key(secret) if self.kind == "hmac" else secret)
        network = ip_network(self.allowed or "") if self.kind == "address" else None
        object.__setattr__(self, "network", network)


@dataclass(frozen=True)
class Call:
    """What a caller sent, as far as checks look at it.

    Attributes:
        method: As it was sent.
        url: The URL that the caller called: scheme, host, path and query as the caller wrote them.
        headers: By name in lower case; the values of a header that came twice have a comma in
            between. Characters stand for bytes (Latin-1), as in WSGI.
        query_token: The token in the query.
        body: As it was sent.
        address: Where the call comes from, see `client_address`.
        now: The receiver's clock, with a zone.
    """

    method: str
    url: str = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)
    query_token: str | None = field(repr=False)
    body: bytes = field(repr=False)
    address: str | None
    now: datetime


def verify(checks: Iterable[Check], call: Call) -> tuple[int, ...]:
    """The ids of the checks that a call passed.

    Every kind that has a check which counts now has to be passed, by one of its checks at least, so
    that secrets can be rotated.

    Raises:
        Refused: a kind was not passed, or there is no check that counts.
    """
    by_kind: dict[Kind, list[Check]] = {}
    for check in checks:
        if is_valid(check.valid_from, check.valid_to, call.now):
            by_kind.setdefault(check.kind, []).append(check)
    if not by_kind:
        raise Refused(401, "no_check_configured")
    passed: list[int] = []
    for kind, passing in _PASSING.items():
        if kind in by_kind:
            passed += passing(by_kind[kind], call)
    return tuple(passed)


def client_address(peer: str, forwarded_for: str | None, trusted_proxies: int) -> str | None:
    """The address that a call comes from; None where that cannot be told.

    Args:
        peer: The other end of the connection.
        forwarded_for: The X-Forwarded-For header, to which each proxy adds the address it saw.
        trusted_proxies: How many proxies of one's own stand before the receiver. The entries that
            they added are the last ones; what stands before those is the caller's invention.
    """
    seen = peer
    if trusted_proxies > 0:
        entries = (forwarded_for or "").rsplit(",", trusted_proxies)[-trusted_proxies:]
        if len(entries) < trusted_proxies:
            return None
        seen = entries[0]
    address = _address(seen.strip(" "))
    return None if address is None else str(address)


@lru_cache(maxsize=1024)
def _address(text: str) -> IPv4Address | IPv6Address | None:
    try:
        address = ip_address(text)
    except ValueError:
        return None
    # A socket that listens on both families shows 203.0.113.7 as ::ffff:203.0.113.7.
    return (address.ipv4_mapped if isinstance(address, IPv6Address) else None) or address


def _passing_address(checks: list[Check], call: Call) -> list[int]:
    address = _address(call.address or "")
    passed = [
        check.check_id
        for check in checks
        if check.network is not None and address is not None and address in check.network
    ]
    return _at_least_one(passed, "address_not_allowed", status=403)


def _passing_user_agent(checks: list[Check], call: Call) -> list[int]:
    agent = call.headers.get("user-agent", "")
    passed = [check.check_id for check in checks if agent.startswith(check.allowed or "\0")]
    return _at_least_one(passed, "user_agent_wrong")


def _passing_token(checks: list[Check], call: Call) -> list[int]:
    offered = (
        call.headers.get("x-webhook-token"),
        _authorization(call, "bearer"),
        call.query_token,
    )
    tokens = [token.encode("utf-8", "surrogatepass") for token in offered if token]
    if not tokens:
        raise Refused(401, "token_missing")
    return _at_least_one(_matching(checks, tokens, lambda check: check.key), "token_wrong")


def _passing_basic(checks: list[Check], call: Call) -> list[int]:
    """RFC 7617, in UTF-8."""
    encoded = _authorization(call, "basic")
    if encoded is None:
        raise Refused(401, "password_missing")
    try:
        login = base64.b64decode(encoded, validate=True)
    except ValueError:
        login = b""  # no check has an empty login
    return _at_least_one(_matching(checks, [login], lambda check: check.key), "password_wrong")


def _passing_hubspot(checks: list[Check], call: Call) -> list[int]:
    """HubSpot's request signature, version 3; see contract hubspot."""
    signature = call.headers.get("x-hubspot-signature-v3")
    stamp = call.headers.get("x-hubspot-request-timestamp", "")
    if not signature:
        raise Refused(401, "signature_missing")
    if not _BASE64_OF_SHA256.fullmatch(signature):
        raise Refused(401, "signature_malformed")
    if not _MILLISECONDS.fullmatch(stamp):
        raise Refused(401, "timestamp_malformed")
    uri = _DECODED_BY_HUBSPOT.sub(lambda found: _DECODED[found.group()], call.url)
    signed = b"".join(
        (
            call.method.encode("utf-8", "surrogatepass"),
            uri.encode("utf-8", "surrogatepass"),
            call.body,
            stamp.encode(),
        )
    )
    passed = _signing(checks, signed, [signature.encode()])
    age = round(call.now.timestamp() * 1000) - int(stamp)
    return _inside_window(passed, is_inside=abs(age) <= TOLERANCE_SECONDS * 1000)


def _passing_hmac(checks: list[Check], call: Call) -> list[int]:
    """Standard Webhooks 1.0.0, symmetric signatures (``v1``)."""
    message_id = call.headers.get("webhook-id")
    stamp = call.headers.get("webhook-timestamp", "")
    header = call.headers.get("webhook-signature")
    if not message_id or not header:
        raise Refused(401, "signature_missing")
    if not _MESSAGE_ID.fullmatch(message_id) or len(header) > LONGEST_SIGNATURE_HEADER:
        raise Refused(401, "signature_malformed")
    signatures = [
        found.group(1).encode() for found in map(_V1.fullmatch, header.split(" ")) if found
    ]
    if not 0 < len(signatures) <= MOST_SIGNATURES:
        raise Refused(401, "signature_malformed")
    if not _SECONDS.fullmatch(stamp):
        raise Refused(401, "timestamp_malformed")
    passed = _signing(checks, f"{message_id}.{stamp}.".encode() + call.body, signatures)
    age = call.now.timestamp() - int(stamp)
    return _inside_window(passed, is_inside=abs(age) <= TOLERANCE_SECONDS)


def _signing(checks: list[Check], signed: bytes, signatures: list[bytes]) -> list[int]:
    """The checks whose key made one of the signatures, each in base64."""
    return _matching(
        checks,
        signatures,
        lambda check: base64.b64encode(hmac.digest(check.key, signed, "sha256")),
    )


def _matching(
    checks: list[Check], offered: list[bytes], expected: Callable[[Check], bytes]
) -> list[int]:
    """The checks whose expectation was offered; the time it takes does not tell how nearly."""
    passed = []
    for check in checks:
        wanted = expected(check)
        if sum([hmac.compare_digest(wanted, one) for one in offered]):
            passed.append(check.check_id)
    return passed


def _inside_window(passed: list[int], *, is_inside: bool) -> list[int]:
    # Looked at last, so that this reason only counts what was truly signed: if it becomes frequent,
    # calls are being repeated, or a clock is wrong.
    _at_least_one(passed, "signature_wrong")
    if not is_inside:
        raise Refused(401, "timestamp_outside_window")
    return passed


def _at_least_one(passed: list[int], reason: str, status: int = 401) -> list[int]:
    if not passed:
        raise Refused(status, reason)
    return passed


def _authorization(call: Call, scheme: str) -> str | None:
    given, _, credentials = call.headers.get("authorization", "").partition(" ")
    return credentials.strip(" ") if given.lower() == scheme else None


#: How a call passes each kind, the cheap ones first.
_PASSING: dict[Kind, Callable[[list[Check], Call], list[int]]] = {
    "address": _passing_address,
    "user_agent": _passing_user_agent,
    "token": _passing_token,
    "basic": _passing_basic,
    "hubspot": _passing_hubspot,
    "hmac": _passing_hmac,
}

#: Compared as base64, so what is no canonical base64 of 32 bytes needs no decoding to be refused.
_BASE64_OF_SHA256 = re.compile(r"[A-Za-z0-9+/]{43}=")
_V1 = re.compile(rf"v1,({_BASE64_OF_SHA256.pattern})")
_MESSAGE_ID = re.compile(r"[ -\-/-~]{1,256}")  # what ASCII can show, but for the dot
_SECONDS = re.compile(r"[0-9]{1,11}")
_MILLISECONDS = re.compile(r"[0-9]{1,14}")

#: What HubSpot decodes of a URL before it signs it; all else stays as it was sent.
_DECODED = {
    "%3A": ":",
    "%2F": "/",
    "%3F": "?",
    "%40": "@",
    "%21": "!",
    "%24": "$",
    "%27": "'",
    "%28": "(",
    "%29": ")",
    "%2A": "*",
    "%2C": ",",
    "%3B": ";",
}
_DECODED_BY_HUBSPOT = re.compile("|".join(_DECODED))
