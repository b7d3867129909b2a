"""By what a sender of webhooks is known: secrets, address ranges and user agents of projects."""

import base64
import ipaddress
import re
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, get_args

import psycopg
from psycopg.rows import class_row

from stageline.database import connect
from stageline.errors import StagelineError
from stageline.settings.changes import changing
from stageline.settings.encryption import decrypt, encrypt
from stageline.settings.names import require_one_line
from stageline.settings.projects import require_plain_id, unknown_project

Sender = Literal["keycrm", "pipedrive", "hubspot", "zapier"]
SENDERS: tuple[Sender, ...] = get_args(Sender)

#: How a caller shows who it is. `address` and `user_agent` are no secrets.
Kind = Literal["hmac", "hubspot", "basic", "token", "address", "user_agent"]
KINDS: tuple[Kind, ...] = get_args(Kind)
OPEN_KINDS: tuple[Kind, ...] = ("address", "user_agent")

#: What a secret in the form of the Standard Webhooks specification begins with; base64 follows.
SIGNING_PREFIX = b"whsec_"


@dataclass(frozen=True, kw_only=True)
class WebhookCheck:
    """A row of ``settings.webhook_checks``, without what is secret.

    Attributes:
        allowed: The address range, or what the user agent has to begin with; None for a secret.
        valid_from, valid_to: From, inclusive, and until, exclusive; None = no end.
    """

    check_id: int
    sender: Sender
    project_id: str
    kind: Kind
    label: str | None
    allowed: str | None
    valid_from: datetime
    valid_to: datetime | None


@dataclass(frozen=True, kw_only=True)
class StoredCheck(WebhookCheck):
    """A whole row of ``settings.webhook_checks``; `decrypted` gives its secret."""

    secret_encrypted: str | None = field(repr=False)


def allow(
    sender: Sender,
    project_id: str,
    kind: Kind,
    *,
    secret: str | None = None,
    allowed: str | None = None,
    label: str | None = None,
    valid_from: datetime | None = None,
    valid_to: datetime | None = None,
) -> int:
    """Lets a sender in by one more secret, address range or user agent; gives the check's id.

    Args:
        sender, project_id: Who sends, and for which project.
        kind: How the sender shows who it is.
        secret: For all kinds but `OPEN_KINDS`: a signing secret (``whsec_`` and base64 of 24 to 64
            bytes, or any text of 16 characters and more), ``user:password``, or a token.
        allowed: For `OPEN_KINDS`: an address range in CIDR notation, or how the user agent begins.
        label: For people.
        valid_from: From when it counts; now where not given.
        valid_to: Until when; for good where not given.

    Raises:
        StagelineError: one of them is not as it has to be, the project is not known, or there is no
            key to encrypt with. No message holds the secret.
    """
    require_plain_id(project_id)
    if kind == "hubspot" and sender != "hubspot":
        raise StagelineError("Only HubSpot signs as HubSpot does: its kind goes with its sender.")
    if label is not None:
        require_one_line(label, "The label")
    if kind in OPEN_KINDS:
        allowed, encrypted = _require_allowed(kind, allowed), None
    else:
        encrypted = encrypt(_require_secret(kind, secret))
    values = {
        "sender": sender,
        "project_id": project_id,
        "kind": kind,
        "secret_encrypted": encrypted,
        "allowed": allowed,
        "label": label,
        "valid_from": valid_from,
        "valid_to": valid_to,
    }
    with changing() as session:
        try:
            ((check_id,),) = session.execute(
                """
                insert into settings.webhook_checks (
                    sender, project_id, kind, secret_encrypted, allowed, label, valid_from, valid_to
                )
                values (
                    %(sender)s, %(project_id)s, %(kind)s, %(secret_encrypted)s, %(allowed)s,
                    %(label)s, coalesce(%(valid_from)s, now()), %(valid_to)s
                )
                returning check_id
                """,
                values,
            ).fetchall()
        except psycopg.errors.ForeignKeyViolation:
            raise unknown_project(source_system(sender), project_id) from None
        except psycopg.errors.CheckViolation:  # webhook_checks_valid: all else is checked above
            raise StagelineError("It would end before it begins. Give a later end.") from None
    return int(check_id)


def revoke(check_id: int, at: datetime | None = None) -> WebhookCheck:
    """Ends a check, now or at a given instant; it stays in the table, and never ends later than it
    would have.

    Raises:
        StagelineError: there is no such check, or it begins only after that.
    """
    with changing() as session, session.cursor(row_factory=class_row(WebhookCheck)) as cursor:
        try:
            found = cursor.execute(
                """
                update settings.webhook_checks
                set valid_to = least(valid_to, coalesce(%(at)s, now()))
                where check_id = %(check_id)s
                returning
                    check_id, sender, project_id, kind, label, allowed, valid_from, valid_to
                """,
                {"check_id": check_id, "at": at},
            ).fetchone()
        except psycopg.errors.CheckViolation:
            raise StagelineError(
                f"Check {check_id} begins only after that; `stageline projects checks` says when."
                " Give a later instant with --at."
            ) from None
    if found is None:
        raise StagelineError(
            f"There is no check {check_id}. `stageline projects checks` lists them."
        )
    return found


def checks() -> list[WebhookCheck]:
    """All checks, also those that have ended, by sender, project and id."""
    with connect("owner") as session, session.cursor(row_factory=class_row(WebhookCheck)) as cursor:
        cursor.execute(
            "select check_id, sender, project_id, kind, label, allowed, valid_from, valid_to"
            " from settings.webhook_checks order by sender, project_id, check_id"
        )
        return cursor.fetchall()


def load(connection: psycopg.Connection[Any]) -> list[StoredCheck]:
    """The checks that have not ended, with those that only begin later, as the receiver."""
    with connection.cursor(row_factory=class_row(StoredCheck)) as cursor:
        cursor.execute(
            """
            select
                check_id, sender, project_id, kind, label, allowed, valid_from, valid_to,
                secret_encrypted
            from settings.webhook_checks
            where valid_to is null or valid_to > now()
            order by check_id
            """
        )
        return cursor.fetchall()


def decrypted(check: StoredCheck) -> bytes | None:
    """The secret of a check as it was given, in UTF-8; None where it has none.

    Raises:
        StagelineError: it cannot be decrypted.
    """
    if check.secret_encrypted is None:
        return None
    return decrypt(check.secret_encrypted).encode()


def is_valid(valid_from: datetime, valid_to: datetime | None, instant: datetime) -> bool:
    """Whether a check counts at an instant: from its beginning, inclusive, until before its end."""
    return valid_from <= instant and (valid_to is None or instant < valid_to)


def source_system(sender: Sender) -> str:
    """The source whose projects a sender speaks of: Zapier sends what happened in Pipedrive."""
    return "pipedrive" if sender == "zapier" else sender


def signing_key(secret: bytes) -> bytes:
    """The bytes that a secret of kind ``hmac`` signs with.

    Those that stand in base64 behind ``whsec_`` (Standard Webhooks), else the text itself.

    Raises:
        StagelineError: behind ``whsec_`` stands something else than base64 of 24 to 64 bytes.
    """
    if not secret.startswith(SIGNING_PREFIX):
        return secret
    try:
        key = base64.b64decode(secret.removeprefix(SIGNING_PREFIX), validate=True)
    except ValueError:
        key = b""
    if not 24 <= len(key) <= 64:
        raise StagelineError(
            "A signing secret that begins with whsec_ goes on with base64 of 24 to 64 bytes."
            " Copy it whole, or let --generate make one."
        )
    return key


#: What a secret of each kind looks like, and what that is in words.
_SECRETS: dict[Kind, tuple[re.Pattern[str], str]] = {
    "hmac": (re.compile(r".{16,1000}"), "A signing secret has 16 to 1000 characters in one line."),
    "hubspot": (
        re.compile(r".{16,1000}"),
        "The client secret of a HubSpot app has 16 to 1000 characters in one line.",
    ),
    "basic": (
        re.compile(r"[^:\x00-\x1f\x7f]{1,500}:[^\x00-\x1f\x7f]{1,500}"),
        "A login is written user:password, without control characters.",
    ),
    "token": (
        re.compile(r"[A-Za-z0-9._~-]{16,1000}"),
        "A token has 16 to 1000 characters: letters, digits, '.', '_', '~' and '-'.",
    ),
}


def _require_secret(kind: Kind, secret: str | None) -> str:
    if not secret:
        raise StagelineError("The secret is empty.")
    if any("\ud800" <= character <= "\udfff" for character in secret):
        raise StagelineError("The secret is not text in UTF-8.")
    shape, in_words = _SECRETS[kind]
    if not shape.fullmatch(secret):
        raise StagelineError(in_words)
    if kind == "hmac":
        signing_key(secret.encode())
    return secret


def _require_allowed(kind: Kind, allowed: str | None) -> str:
    if not allowed:
        raise StagelineError("Say what is allowed: an address range, or how the user agent begins.")
    if kind == "address":
        return _require_network(allowed)
    require_one_line(allowed, "The beginning of the user agent")
    if not allowed.isascii():
        raise StagelineError("A user agent has no other signs than those of ASCII.")
    return allowed


def _require_network(text: str) -> str:
    try:
        network = ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise StagelineError(
            f"{text!r} is no address range. Write 203.0.113.0/24, 2001:db8::/32, or one address."
        ) from None
    if network.network_address != ipaddress.ip_interface(text).ip:
        raise StagelineError(
            f"{text} names one address and a range. Write {network} for the range, or"
            f" {ipaddress.ip_interface(text).ip} for the address."
        )
    if isinstance(network, ipaddress.IPv6Network) and network.network_address.ipv4_mapped:
        raise StagelineError(f"{text} is a range of IPv4. Write it as one, as in 203.0.113.0/24.")
    if network.prefixlen == 0:
        raise StagelineError(f"{text} lets everyone in. Name the addresses of the sender.")
    return str(network)
