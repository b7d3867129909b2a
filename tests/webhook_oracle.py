"""What webhook_stats has to hold, from the rows of schema raw, one hour after the other."""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import psycopg

#: source system, project, hour
Cell = tuple[str, str, datetime]


@dataclass
class Hour:
    """What an hour of a project holds."""

    stored: int = 0
    duplicates: int = 0
    unparseable: int = 0
    refused: int = 0
    stage_events: int = 0
    impossible_durations: int = 0
    lags: list[int] = field(default_factory=list)

    def row(self) -> tuple[int | None, ...]:
        """As the model's columns, from ``received`` to ``p95_lag_seconds``."""
        mean = _rounded(sum(self.lags) / len(self.lags)) if self.lags else None
        return (
            self.stored + self.refused,
            self.stored,
            self.duplicates,
            self.unparseable,
            self.refused,
            self.stage_events,
            self.impossible_durations,
            mean,
            *(percentile(self.lags, share) for share in (0.5, 0.85, 0.95)),
        )


def percentile(values: Sequence[int], share: float) -> int | None:
    """Linear between the two nearest ranks, a half rounded up."""
    if not values:
        return None
    ordered = sorted(values)
    rank = share * (len(ordered) - 1)
    low = math.floor(rank)
    high = min(low + 1, len(ordered) - 1)
    return _rounded(round(ordered[low] + (ordered[high] - ordered[low]) * (rank - low), 4))


def hours(session: psycopg.Connection[Any]) -> dict[Cell, Hour]:
    """All of them. The session's role reads schema raw whole."""
    found: dict[Cell, Hour] = defaultdict(Hour)
    of_delivery: dict[Any, Hour] = {}
    seen: set[tuple[str, str, str]] = set()
    for key, sender, source, project, its_id, at, reason in session.execute(
        "select delivery_id, sender, source_system, project_id, sender_delivery_id, received_at,"
        " unparsed_reason from raw.deliveries order by received_at, delivery_id"
    ).fetchall():
        hour = of_delivery[key] = found[source, project, _hour(at)]
        hour.stored += 1
        if its_id is not None:
            hour.duplicates += (sender, project, its_id) in seen
            seen.add((sender, project, its_id))
        last = session.execute(
            "select unparsed_reason from raw.replays where delivery_id = %s"
            " order by replayed_at desc limit 1",
            [key],
        ).fetchone()
        hour.unparseable += reason is not None and (last is None or last[0] is not None)
    for sender, project, reason, at in session.execute(
        "select sender, project_id, reason, refused_at from raw.refusals"
    ):
        source = {"zapier": "pipedrive"}.get(sender, sender)
        if project is None or reason in {"unknown_project", "project_missing"}:
            project = "unknown"
        found[source, project, _hour(at)].refused += 1
    for key, entered, ingested in session.execute(
        "select delivery_id, entered_at, ingested_at from raw.stage_events"
    ):
        if key not in of_delivery:
            continue
        of_delivery[key].stage_events += 1
        if entered > ingested or not 2000 <= entered.astimezone(UTC).year < 2100:
            of_delivery[key].impossible_durations += 1
        else:
            of_delivery[key].lags.append(math.floor((ingested - entered).total_seconds()))
    return found


def _hour(instant: datetime) -> datetime:
    return instant.astimezone(UTC).replace(minute=0, second=0, microsecond=0)


def _rounded(value: float) -> int:
    return math.floor(value + 0.5)
