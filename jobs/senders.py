"""What alerts look like in Slack, in a mail, in PagerDuty and to a webhook, and how they get there.

A sender gives what the other side answered, or raises `FailedError` (may pass) or `RefusedError` (a
person has to mend it). Neither ever holds an address, a key or a password.
"""

import base64
import binascii
import hashlib
import hmac
import html
import json
import logging
import re
import shlex
import smtplib
import ssl
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from email.message import EmailMessage
from email.utils import format_datetime
from http import HTTPStatus
from typing import Any, Literal

import requests
from requests.structures import CaseInsensitiveDict
from slack_sdk.webhook import WebhookClient
from urllib3 import exceptions as transport

from jobs.channels import (
    CRITICALITIES,
    Channel,
    Criticality,
    Email,
    PagerDuty,
    Slack,
    Webhook,
    require_safe_url,
    secret_of,
)
from loaders.api import FailedError, RefusedError, retry_after
from loaders.open_address import NoRedirects

Event = Literal["opened", "reminder", "escalated", "resolved", "test"]

#: Seconds for a connection, and for each read.
_TIMEOUTS = (5.0, 10.0)

#: Alerts that one message tells in full: Slack takes 50 blocks, and nobody reads more.
MOST_TOLD = 40

#: Bytes of an answer that are looked at.
_ANSWER = 16 * 1024

_WORDS: dict[Event, str] = {
    "opened": "Opened",
    "reminder": "Still open",
    "escalated": "Nobody has acknowledged",
    "resolved": "Resolved",
    "test": "Test",
}


@dataclass(frozen=True)
class Notice:
    """What is to be told of one alert.

    Attributes:
        notice_id: The same at each attempt to tell it.
        event: What happened to it.
        key: The alert's key.
        kind, criticality, subject, title, text, numbers, since, opened_at: As the alert has them.
        acknowledged_by, resolved_at: None where nobody did, and where it is open.
    """

    notice_id: str
    event: Event
    key: str
    kind: str
    criticality: Criticality
    subject: str
    title: str
    text: str
    numbers: Mapping[str, float | int]
    since: datetime
    opened_at: datetime
    acknowledged_by: str | None = None
    resolved_at: datetime | None = None

    @property
    def opening(self) -> str:
        """Names this opening of the alert: the same in all that is told of it."""
        # A hash, as PagerDuty takes 255 signs; an alert that comes back is a new incident.
        told = f"{self.key}|{self.opened_at.astimezone(UTC).isoformat()}"
        return f"stageline-{hashlib.sha256(told.encode()).hexdigest()}"


@dataclass(frozen=True)
class Message:
    """What goes out together.

    Attributes:
        message_id: The same at each attempt to send these notices.
        notices: One for each alert, in the order in which things happened.
    """

    message_id: str
    notices: Sequence[Notice]

    @property
    def told(self) -> list[Notice]:
        """Those that are told in full, the most critical ones first."""
        return sorted(self.notices, key=lambda notice: CRITICALITIES.index(notice.criticality))[
            :MOST_TOLD
        ]

    @property
    def headline(self) -> str:
        """What it is about in one line."""
        if len(self.notices) == 1:
            [notice] = self.notices
            return f"{_WORDS[notice.event]}: {notice.title} ({notice.criticality})"
        counts = Counter(_WORDS[notice.event] for notice in self.notices)
        return ", ".join(f"{count} {word[:1].lower()}{word[1:]}" for word, count in counts.items())

    @property
    def rest(self) -> str:
        """How much is not told in full; empty where all is."""
        left = len(self.notices) - len(self.told)
        return f"And {left} more: `stageline notify list` has them all." if left else ""


def send(channel: Channel, message: Message) -> str:
    """Sends a message; gives what the other side answered. To PagerDuty it has one notice.

    Raises:
        FailedError: it did not arrive, or may not have; the next attempt may go better.
        RefusedError: no attempt will go better until a person mends something.
        StagelineError: a variable is not set.
    """
    match channel:
        case Slack():
            return _to_slack(channel, message)
        case Email():
            return _to_mail(channel, message)
        case PagerDuty():
            return _to_pagerduty(channel, message)
        case Webhook():
            return _to_webhook(channel, message)


def _to_slack(channel: Slack, message: Message) -> str:
    # The library writes addresses, which are secrets here, to the log that it is given.
    silent = logging.Logger("slack", level=logging.CRITICAL + 1)
    client = WebhookClient(
        _secret_url(channel, channel.url_variable),
        timeout=int(_TIMEOUTS[1]),
        retry_handlers=[],
        logger=silent,
    )
    client.proxy = None  # it would take one from the environment, and leave NO_PROXY out of account
    text = _escaped(_plain(message), 4000)
    try:
        answer = client.send(text=text, blocks=_blocks(message))
    except Exception as error:  # noqa: BLE001 - it raises what its transport does; the words hold the URL
        raise _unreachable(error) from None
    word = answer.body if re.fullmatch("[a-z_]{1,60}", answer.body) else ""
    _judge(answer.status_code, CaseInsensitiveDict(dict(answer.headers)), word)
    if word != "ok":
        raise FailedError(f"HTTP {answer.status_code}, but not Slack's `ok`: is the address right?")
    return f"HTTP {answer.status_code} {word}"


def _blocks(message: Message) -> list[dict[str, Any]]:
    """Slack's blocks: no more than 50, and none longer than it takes."""
    blocks: list[dict[str, Any]] = [
        {"type": "header", "text": {"type": "plain_text", "text": _cut(message.headline, 150)}}
    ]
    for notice in message.told:
        lines = [
            f"*{_WORDS[notice.event]}* ({notice.criticality}): {_escaped(notice.title, 1000)}",
            _escaped(notice.text, 1500),
            _escaped(_when(notice), 300),
            _escaped(_acknowledging(notice), 190),
        ]
        told = "\n".join(line for line in lines if line)
        blocks.append({"type": "section", "text": {"type": "mrkdwn", "text": told}})
    if message.rest:
        blocks.append(
            {"type": "context", "elements": [{"type": "plain_text", "text": message.rest}]}
        )
    return blocks


def _escaped(text: str, most: int) -> str:
    """So that no text mentions a person or a channel, or becomes a link, in Slack."""
    escaped = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    if len(escaped) <= most:
        return escaped
    # No sign becomes longer than five, so that as many fewer are enough to be rid of the rest.
    return _escaped(_cut(text, min(most, len(text) - (len(escaped) - most + 4) // 5)), most)


def _to_mail(channel: Email, message: Message) -> str:
    mail = EmailMessage()
    mail["Subject"] = _cut(" ".join(f"[Stageline] {message.headline}".split()), 200)
    mail["From"] = channel.sender
    mail["To"] = ", ".join(channel.to)
    mail["Date"] = format_datetime(datetime.now(UTC))
    mail["Message-ID"] = f"<{message.message_id}@{channel.sender.rpartition('@')[2]}>"
    mail["Auto-Submitted"] = "auto-generated"
    mail.set_content(_plain(message))
    mail.add_alternative(_page(message), subtype="html")
    password = secret_of(channel, channel.password_variable) if channel.password_variable else None
    try:
        server = _mail_server(channel)
        try:
            if channel.user is not None and password is not None:
                server.login(channel.user, password)
            refused = server.send_message(mail)
        finally:
            # Whatever comes of it: the mail has been taken by now, or has not.
            with suppress(OSError, smtplib.SMTPException):
                server.quit()
    except smtplib.SMTPRecipientsRefused as error:
        codes = [code for code, _ in error.recipients.values()]
        raise _mail_error(min(codes), "takes mail for none of the addresses") from None
    except smtplib.SMTPResponseException as error:
        raise _mail_error(error.smtp_code, _said(error.smtp_error)) from None
    except smtplib.SMTPNotSupportedError:
        raise RefusedError(
            f"the mail server does not offer what is needed ({channel.security}, a login):"
            " is the port right?"
        ) from None
    except (OSError, smtplib.SMTPException, UnicodeError) as error:
        raise _unreachable(error) from None
    if refused:
        return f"taken, but not for {len(refused)} of {len(channel.to)} addresses"
    return "taken"


def _mail_server(channel: Email) -> smtplib.SMTP:
    context = ssl.create_default_context()
    if channel.security == "tls":
        return smtplib.SMTP_SSL(channel.host, channel.port, timeout=_TIMEOUTS[1], context=context)
    server = smtplib.SMTP(channel.host, channel.port, timeout=_TIMEOUTS[1])
    if channel.security == "starttls":
        try:
            server.starttls(context=context)
        except BaseException:
            server.close()
            raise
    return server


def _mail_error(code: int, words: str) -> FailedError | RefusedError:
    """SMTP: from 500 on it is for good."""
    kind = RefusedError if code >= 500 else FailedError
    return kind(f"SMTP {code}: {words}")


def _said(answer: bytes | str) -> str:
    """What a mail server said; it may repeat the login, but is never sent a password in words."""
    text = answer.decode("utf-8", "replace") if isinstance(answer, bytes) else answer
    return _cut(" ".join(text.split()), 150)


def _to_pagerduty(channel: PagerDuty, message: Message) -> str:
    key = secret_of(channel, channel.routing_key_variable)
    [notice] = message.notices
    action = "resolve" if notice.event == "resolved" else "trigger"
    answer = _pagerduty_event(channel, key, notice, action)
    if notice.event == "test":  # nobody has to close what was only tried
        _pagerduty_event(channel, key, notice, "resolve")
    return answer


def _pagerduty_event(channel: PagerDuty, key: str, notice: Notice, action: str) -> str:
    event: dict[str, Any] = {
        "routing_key": key,
        "event_action": action,
        "dedup_key": notice.opening,
    }
    if action == "trigger":
        event["client"] = "Stageline"
        event["payload"] = {
            "summary": _cut(notice.title, 1024),
            "source": "Stageline",
            "severity": _SEVERITIES[notice.criticality],
            "timestamp": _instant(notice.since),
            "component": notice.subject,
            "class": notice.kind,
            "custom_details": {"text": notice.text, "key": notice.key, **notice.numbers},
        }
    status, headers, body = _post(channel.url, json.dumps(event).encode(), {})
    _judge(status, headers, _pagerduty_words(body, key))
    return f"HTTP {status} {_pagerduty_words(body, key)}".strip()


_SEVERITIES: dict[Criticality, str] = {
    "critical": "critical",
    "high": "error",
    "medium": "warning",
    "low": "info",
}


def _pagerduty_words(body: bytes, key: str) -> str:
    try:
        answer = json.loads(body)
        words = [answer.get("message"), *(answer.get("errors") or [])]
    except (ValueError, AttributeError, TypeError):
        return ""
    said = ", ".join(" ".join(word.split()) for word in words if isinstance(word, str))
    return _cut(said.replace(key, "***"), 150)


def _to_webhook(channel: Webhook, message: Message) -> str:
    url = _secret_url(channel, channel.url_variable)
    body = json.dumps(
        {
            "type": "stageline.test" if _is_test(message) else "stageline.alerts",
            "timestamp": _instant(datetime.now(UTC)),
            "data": {
                "channel": channel.name,
                "headline": message.headline,
                "notices": [_as_json(notice) for notice in message.notices],
            },
        },
        ensure_ascii=False,
    ).encode()
    status, headers, _ = _post(url, body, _signed(channel, message.message_id, body))
    _judge(status, headers, "")
    return f"HTTP {status}"


def _is_test(message: Message) -> bool:
    return any(notice.event == "test" for notice in message.notices)


def _as_json(notice: Notice) -> dict[str, Any]:
    told = {**vars(notice), "id": notice.notice_id, "opening": notice.opening}
    del told["notice_id"]
    return {
        name: _instant(value) if isinstance(value, datetime) else value
        for name, value in told.items()
    }


def _signed(channel: Webhook, message_id: str, body: bytes) -> dict[str, str]:
    """The headers of Standard Webhooks 1.0.0: HMAC-SHA256 over id, instant and body."""
    written = secret_of(channel, channel.secret_variable).removeprefix("whsec_")
    try:
        key = base64.b64decode(written, validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not 24 <= len(key) <= 64:
        raise RefusedError(
            f"{channel.secret_variable} is not `whsec_` and the base64 of 24 to 64 bytes"
        )
    sent_at = str(int(time.time()))
    signed = b".".join((message_id.encode(), sent_at.encode(), body))
    signature = base64.b64encode(hmac.digest(key, signed, "sha256")).decode()
    return {
        "webhook-id": message_id,
        "webhook-timestamp": sent_at,
        "webhook-signature": f"v1,{signature}",
    }


def _secret_url(channel: Channel, variable: str) -> str:
    try:
        return require_safe_url(secret_of(channel, variable))
    except ValueError as error:
        raise RefusedError(f"{variable}: {error}") from None


def _post(
    url: str, body: bytes, headers: Mapping[str, str]
) -> tuple[int, Mapping[str, str], bytes]:
    sent = {"Content-Type": "application/json", "User-Agent": "Stageline", **headers}
    try:
        with (
            NoRedirects() as session,
            session.post(url, data=body, headers=sent, timeout=_TIMEOUTS, stream=True) as answer,
        ):
            return (
                answer.status_code,
                answer.headers,
                answer.raw.read(_ANSWER, decode_content=True) or b"",
            )
    except (requests.RequestException, transport.HTTPError) as error:  # their words hold the URL
        raise _unreachable(error) from None


def _judge(status: int, headers: Mapping[str, str], words: str) -> None:
    """Raises what an HTTP answer means that is no success."""
    if 200 <= status < 300:
        return
    name = HTTPStatus(status).phrase if status in set(HTTPStatus) else ""
    said = f"HTTP {status} {words or name}".strip()
    if status in (408, 425, 429) or status >= 500:
        raise FailedError(said, retry_after(headers))
    if 300 <= status < 400:
        said += ", which leads to another address"
    raise RefusedError(said)


def _unreachable(error: BaseException) -> FailedError:
    """What a transport raised, without its words, which hold the address."""
    reason = getattr(error, "reason", None)  # of urllib's errors, which have the cause in it
    cause: object = reason if isinstance(reason, BaseException) else error
    if isinstance(cause, (TimeoutError, requests.Timeout, transport.TimeoutError)):
        return FailedError("no answer in time")
    if isinstance(cause, (ssl.SSLError, requests.exceptions.SSLError, transport.SSLError)):
        return FailedError("no secure connection: is its certificate one that this machine trusts?")
    return FailedError(f"the connection failed ({type(cause).__name__})")


def _plain(message: Message) -> str:
    """The message as text."""
    parts = [message.headline]
    for notice in message.told:
        lines = [
            f"{_WORDS[notice.event]} ({notice.criticality}): {notice.title}",
            notice.text,
            _when(notice),
            _acknowledging(notice),
        ]
        parts.append("\n".join(line for line in lines if line))
    return "\n\n".join([*parts, message.rest] if message.rest else parts) + "\n"


def _page(message: Message) -> str:
    """The message as simple HTML."""
    parts = [f"<p><strong>{html.escape(message.headline)}</strong></p>"]
    for notice in message.told:
        lines = [
            f"<strong>{_WORDS[notice.event]} ({notice.criticality}):</strong>"
            f" {html.escape(notice.title)}",
            *(html.escape(line) for line in (*notice.text.splitlines(), _when(notice))),
        ]
        parts.append(f"<p>{'<br>'.join(line for line in lines if line)}</p>")
    if message.rest:
        parts.append(f"<p>{html.escape(message.rest)}</p>")
    return f"<html><body>{''.join(parts)}</body></html>"


def _acknowledging(notice: Notice) -> str:
    """The command by which somebody takes an alert on; empty where nobody has to."""
    is_open = notice.event in ("opened", "reminder", "escalated")
    if not is_open or notice.acknowledged_by is not None:
        return ""
    return f"stageline notify acknowledge {shlex.quote(notice.key)}"


def _when(notice: Notice) -> str:
    told = f"Since {notice.since.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
    if notice.resolved_at is not None:
        told += f", resolved {notice.resolved_at.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
    if notice.acknowledged_by is not None:
        told += f", acknowledged by {notice.acknowledged_by}"
    return f"{told}."


def _instant(instant: datetime) -> str:
    return f"{instant.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"
