"""Sends metrics to a DogStatsD (the agent of Datadog) by UDP, where one is configured.

Nothing waits for it, and what nobody listens to is lost.
"""

import atexit
from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING

from stageline.config import settings

if TYPE_CHECKING:
    from datadog.dogstatsd.base import DogStatsd

#: Before the name of every metric.
_NAMESPACE = "stageline"

#: Packets that wait for the network at most; further ones are dropped.
_QUEUE = 1000

#: Seconds that a process waits in its end for what is still to be sent.
_GRACE = 1.0


def is_configured() -> bool:
    """Whether there is anybody to send to."""
    return settings().dogstatsd is not None


def count(name: str, amount: float, tags: Mapping[str, str]) -> None:
    """So many more of something happened."""
    if is_configured():
        _client().increment(name, amount, _listed(tags))


def distribution(name: str, value: float, tags: Mapping[str, str]) -> None:
    """One value of many, of which percentiles are of interest."""
    if is_configured():
        _client().distribution(name, value, _listed(tags))


def gauge(name: str, value: float, tags: Mapping[str, str]) -> None:
    """What something is now."""
    if is_configured():
        _client().gauge(name, value, _listed(tags))


def _listed(tags: Mapping[str, str]) -> list[str]:
    return [f"{name}:{value}" for name, value in tags.items()]


@cache
def _client() -> "DogStatsd":
    from datadog.dogstatsd.base import DogStatsd  # takes a moment, which only those pay who use it

    address = settings().dogstatsd
    assert address is not None  # noqa: S101 - every caller has asked
    host, _, port = address.rpartition(":")
    client = DogStatsd(
        host.strip("[]"),
        int(port),
        namespace=_NAMESPACE,
        disable_telemetry=True,  # figures of the client itself
        # One packet for many metrics, from a thread of its own: to look the host up may take long.
        disable_buffering=False,
        disable_background_sender=False,
        sender_queue_size=_QUEUE,
    )
    atexit.register(client.stop, _GRACE)
    return client
