"""Visits of deals and orders to stages, computed over sorted lists."""

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

_FIRST = datetime(2000, 1, 1, tzinfo=UTC)
_END = datetime(2100, 1, 1, tzinfo=UTC)

#: Source system, project.
Place = tuple[str, str]


@dataclass(frozen=True)
class Told:
    """An entry into a stage, as one webhook, file or answer of a CRM tells of it."""

    source_system: str
    project_id: str
    entity_type: str
    entity_id: str
    stage_id: str
    entered_at: datetime
    pipeline_id: str | None = None
    stage_group_id: str | None = None
    previous_stage_id: str | None = None
    delivery_id: str | None = None
    sequence: int | None = None
    entity_created_at: datetime | None = None
    ingested_at: datetime | None = None
    record_origin: str = ""


@dataclass(frozen=True)
class Dictionary:
    """What operators set of a project's stages and calendars.

    Attributes:
        stages: Stage -> its pipeline and group.
        kinds: Group -> open, done or cancelled.
        scopes: Group -> its calendar scope; None = the project's own.
        worked: Working seconds of a calendar scope between two instants, in seconds since 1970.
    """

    stages: dict[str, tuple[str | None, str | None]]
    kinds: dict[str, str]
    scopes: dict[str | None, int]
    worked: Callable[[int, int, int], int]


def _second(instant: datetime | None) -> int | None:
    if instant is None or not _FIRST <= instant < _END:
        return None
    return int(instant.timestamp() // 1)


def _merged(told: list[Told]) -> Told:
    """One entry of all that tell of the same one: what the best of them leaves out is filled in."""

    def worth(one: Told) -> tuple[Any, ...]:
        kind = 1 if one.delivery_id else 2 if one.ingested_at else 3
        return (kind, one.ingested_at or _END, one.delivery_id or "", one.record_origin)

    best = min(told, key=worth)
    filled: dict[str, Any] = {}
    for column in (
        *("pipeline_id", "stage_group_id", "previous_stage_id", "sequence", "entity_created_at"),
    ):
        if getattr(best, column) is None:
            stated = [value for one in told if (value := getattr(one, column)) is not None]
            filled[column] = max(stated, default=None)
    ingested = [one.ingested_at for one in told if one.ingested_at]
    return replace(best, ingested_at=min(ingested, default=None), **filled)


def _log(told: Iterable[Told]) -> dict[tuple[str, str, str, str], list[Told]]:
    """By entity, its entries in their order."""
    same: dict[tuple[Any, ...], list[Told]] = defaultdict(list)
    for one in told:
        if one.source_system == "pipedrive":
            one = replace(one, entered_at=one.entered_at.replace(microsecond=0))
        entity = (one.source_system, one.project_id, one.entity_type, one.entity_id)
        same[(*entity, one.stage_id, one.entered_at)].append(one)
    log: dict[tuple[str, str, str, str], list[Told]] = defaultdict(list)
    for key, several in same.items():
        log[key[:4]].append(_merged(several))
    late = datetime.max.replace(tzinfo=UTC)
    for entries in log.values():
        entries.sort(
            key=lambda one: (
                one.entered_at,
                (one.sequence is None, one.sequence),
                one.ingested_at or late,
                (one.delivery_id is None, one.delivery_id or ""),
                one.stage_id,
            )
        )
    return log


def visits(told: Iterable[Told], dictionaries: dict[Place, Dictionary]) -> list[dict[str, Any]]:
    """All rows of int_stage_intervals."""
    rows = []
    for (source_system, project_id, *_), entries in _log(told).items():
        dictionary = dictionaries[source_system, project_id]

        def row(
            number: int,
            stage_id: str,
            entered_at: datetime,
            left_at: datetime | None,
            entry: Told,
            *,
            dictionary: Dictionary = dictionary,
        ) -> dict[str, Any]:
            pipeline_id, group_id = dictionary.stages.get(stage_id, (None, None))
            if number:
                pipeline_id = entry.pipeline_id or pipeline_id
                group_id = entry.stage_group_id or group_id
            scope = dictionary.scopes.get(group_id, dictionary.scopes.get(None))
            entered, left = _second(entered_at), _second(left_at)
            known = entered is not None and left is not None
            seconds = left - entered if known else None
            return {
                "source_system": entry.source_system,
                "project_id": entry.project_id,
                "entity_type": entry.entity_type,
                "entity_id": entry.entity_id,
                "visit_number": number,
                "pipeline_id": pipeline_id,
                "stage_id": stage_id,
                "stage_group_id": group_id,
                "group_kind": dictionary.kinds.get(group_id or "", "open"),
                "entered_at": entered_at,
                "left_at": left_at,
                "is_current": left_at is None,
                "is_inferred": number == 0,
                "seconds": seconds,
                "working_seconds": dictionary.worked(scope, entered, left)
                if known and scope is not None
                else seconds,
                "calendar_scope_id": scope,
                "delivery_id": entry.delivery_id,
                "record_origin": entry.record_origin,
            }

        first = entries[0]
        created_at = first.entity_created_at
        begins_earlier = (
            created_at is not None
            and _second(created_at) is not None
            and created_at < first.entered_at
        )
        if begins_earlier and first.previous_stage_id is not None:
            rows.append(row(0, first.previous_stage_id, created_at, first.entered_at, first))
        for number, entry in enumerate(entries, start=1):
            entered_at = entry.entered_at
            if number == 1 and begins_earlier and first.previous_stage_id is None:
                entered_at = created_at
            left_at = entries[number].entered_at if number < len(entries) else None
            rows.append(row(number, entry.stage_id, entered_at, left_at, entry))
    return rows
