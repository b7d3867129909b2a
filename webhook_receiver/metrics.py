"""What the receiver counts, for Prometheus; every worker process adds to the same numbers.

``PROMETHEUS_MULTIPROC_DIR`` has to be set before this module is imported: `serve` does.
"""

from collections.abc import Iterator
from datetime import UTC, datetime
from functools import cache
from typing import TypeVar

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from webhook_receiver.spool import Spool, SpoolError

_Metric = TypeVar("_Metric", Counter, Histogram)

RECEIVED = Counter(
    "stageline_webhook_received",
    "Requests to an endpoint of a sender, whatever became of them.",
    ["sender"],
)
LANDED = Counter(
    "stageline_webhook_deliveries",
    "Deliveries that are on a disk, by outcome: stored, conflict, duplicate, spooled.",
    ["sender", "project", "outcome"],
)
UNPARSED = Counter(
    "stageline_webhook_unparsed",
    "Deliveries of which some part gave no events.",
    ["sender", "project"],
)
REFUSED = Counter(
    "stageline_webhook_refused",
    "Requests that were refused, by reason.",
    ["sender", "reason"],
)
SECONDS = Histogram(
    "stageline_webhook_seconds",
    "Seconds from the first line of a delivery to its acknowledgement.",
    ["sender"],
    buckets=(0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 5),
)
LAG = Histogram(
    "stageline_webhook_lag_seconds",
    "Seconds from the newest stage change of a delivery to its receipt.",
    ["sender"],
    buckets=(1, 5, 15, 60, 300, 3600, 6 * 3600, 24 * 3600),
)


@cache
def of(metric: _Metric, *labels: str) -> _Metric:
    """``metric`` with its labels; faster than looking them up each time. Labels are few."""
    return metric.labels(*labels)


class _SpoolCollector(Collector):
    def __init__(self, spool: Spool, trouble: str | None) -> None:
        self._spool = spool
        self._trouble = trouble

    def collect(self) -> Iterator[Metric]:
        try:
            count, oldest = self._spool.waiting()
        except SpoolError:
            count, oldest = 0, None  # it was logged, and /readyz tells
        yield GaugeMetricFamily(
            "stageline_webhook_spool_deliveries", "Deliveries that wait in the spool.", value=count
        )
        age = (datetime.now(UTC) - oldest).total_seconds() if oldest else 0
        yield GaugeMetricFamily(
            "stageline_webhook_spool_age_seconds",
            "Seconds that the oldest delivery in the spool has waited.",
            value=age,
        )
        yield GaugeMetricFamily(
            "stageline_webhook_postgres_up",
            "1 while PostgreSQL takes deliveries, else 0.",
            value=0 if self._trouble else 1,
        )


def exposition(spool: Spool, trouble: str | None) -> bytes:
    """All numbers in the text format of Prometheus.

    Args:
        spool: The spool of this machine.
        trouble: Why PostgreSQL takes nothing at present; None while it does.
    """
    registry = CollectorRegistry()
    MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    registry.register(_SpoolCollector(spool, trouble))
    return generate_latest(registry)
