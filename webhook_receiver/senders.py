"""The senders that are known, and the id that a delivery of one of them has."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from uuid import UUID
from zoneinfo import ZoneInfo

from webhook_receiver import hubspot, keycrm, pipedrive, zapier
from webhook_receiver.events import Parsed


@dataclass(frozen=True, slots=True)
class Sender:
    """One who posts here.

    Attributes:
        name: As in the paths that it posts to.
        source_system: The CRM whose deals or orders it speaks of.
        parse: Reads a body, with its headers (keys in lower case), the instant of its receipt and
            the zone of its project. Never raises; the same input gives the same result.
        content: The body as it is the same in every attempt to deliver it.
        retries_429: Whether it sends again what was answered with 429.
    """

    name: str
    source_system: str
    parse: Callable[[bytes, Mapping[str, str], datetime, ZoneInfo], Parsed]
    content: Callable[[bytes], bytes]
    retries_429: bool


def _as_sent(body: bytes) -> bytes:
    """The content of senders that do not count their attempts in the body."""
    return body


SENDERS = {
    sender.name: sender
    for sender in (
        Sender("keycrm", "keycrm", keycrm.parse, _as_sent, retries_429=False),
        Sender("pipedrive", "pipedrive", pipedrive.parse, pipedrive.content, retries_429=False),
        Sender("zapier", "pipedrive", zapier.parse, _as_sent, retries_429=False),
        Sender("hubspot", "hubspot", hubspot.parse, hubspot.content, retries_429=True),
    )
}


def delivery_id(
    sender_name: str, project_id: str, sender_delivery_id: str | None, content: bytes
) -> UUID:
    """The id of a delivery: the first half of SHA-256 over what makes it the same delivery.

    It is a UUID of version 8, whose bits are free but for those that name version and variant.

    Args:
        sender_name: The sender.
        project_id: The project that it was sent to.
        sender_delivery_id: The id that the sender gave it, if any.
        content: Its body, as the same in every attempt.
    """
    texts = (sender_name, project_id, sender_delivery_id)
    digest = sha256()
    for part in (*(text.encode() for text in texts if text is not None), content):
        digest.update(len(part).to_bytes(8))  # so that no two lists of parts look the same
        digest.update(part)
    bits = int.from_bytes(digest.digest()[:16])
    bits = bits & ~(0xF << 76) | 0x8 << 76
    bits = bits & ~(0x3 << 62) | 0x2 << 62
    return UUID(int=bits)
