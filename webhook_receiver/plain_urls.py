"""The URLs of deliveries as senders are given them: who is meant can be told without Flask."""

import re

_PLAIN = re.compile(
    r"""
    /webhooks/
    (?: (?P<sender>keycrm|pipedrive|hubspot) / (?P<project>[A-Za-z0-9._-]+) /? (?:\?.*)?
      | keycrm \? project= (?P<in_query>[A-Za-z0-9._-]+) (?:&.*)?
    )
    """,
    re.VERBOSE,
)


def addressee(target: str) -> tuple[str, str] | None:
    """Whose endpoint a delivery is posted to, and for which project.

    Args:
        target: Path and query of the request, as they were sent.

    Returns:
        None where the URL is written in another way, or is no delivery's; Flask knows then.
    """
    plain = _PLAIN.fullmatch(target)
    if plain is None:
        return None
    return plain["sender"] or "keycrm", plain["project"] or plain["in_query"]
