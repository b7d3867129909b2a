"""Activities of Pipedrive: calls, meetings and the like, done or planned."""

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta

from loaders.pipedrive_lists import (
    IDS_AT_ONCE,
    OVERLAP,
    PAGE,
    ask,
    by_time,
    ids_of,
    read_instant,
    records_of,
    updated_at,
    written,
)
from loaders.pipedrive_tables import ACTIVITIES
from loaders.records import Record
from loaders.sources import Page, Position, Pull, Sweep

ACTIVITIES_PATH = "/api/v2/activities"


def activities(pull: Pull, position: Position | None) -> Iterator[Page]:
    """Those that changed."""
    place = dict(position or {})
    if "to" not in place:
        ended = place.get("until")
        since = pull.since if ended is None else read_instant(ended) - OVERLAP
        place = {"from": written(since), "to": written(pull.until)}
    window = read_instant(place["from"]), read_instant(place["to"])
    for records, seen in by_time(pull.calls, ACTIVITIES_PATH, {}, *window):
        yield Page({ACTIVITIES: records}, {**place, "from": written(seen)})
    yield Page(position={"until": place["to"]})


def _is_wanted(activity: Record, since: datetime) -> bool:
    changed_at = updated_at(activity)
    return changed_at is not None and changed_at >= since


def _by_ids(pull: Pull, ids: Sequence[str]) -> Iterator[Page]:
    for start in range(0, len(ids), IDS_AT_ONCE):
        part = ",".join(ids[start : start + IDS_AT_ONCE])
        answer = ask(pull.calls, ACTIVITIES_PATH, {"ids": part, "limit": PAGE})
        yield Page({ACTIVITIES: records_of(answer)})


#: What was deleted is not among what changed.
SWEEP_OF_ACTIVITIES = Sweep(
    ACTIVITIES, ids_of(ACTIVITIES_PATH, _is_wanted), _by_ids, every=timedelta(days=7)
)
