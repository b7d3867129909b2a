"""Reads what Pipedrive sends (contract pipedrive 1.10), version 2 and, of older accounts, 1.

Only deals matter here. Webhooks get lost at times, so each deal that one names is asked for its
flow afterwards; what is read here is known at once.
"""

import re
from collections.abc import Mapping
from datetime import datetime
from typing import NamedTuple
from zoneinfo import ZoneInfo

from webhook_receiver.bodies import Unreadable, parse_json
from webhook_receiver.events import LifecycleEvent, Parsed, StageEvent, ValueChange
from webhook_receiver.findings import Fields, Findings, sender_delivery_id

#: Objects whose events are known, and of no interest.
_OTHER_OBJECTS = frozenset(
    (
        "activity",
        "activityType",
        "board",
        "deal_installment",
        "deal_product",
        "lead",
        "note",
        "organization",
        "person",
        "phase",
        "pipeline",
        "product",
        "project",
        "stage",
        "task",
        "user",
    )
)
#: The fields of a deal whose changes are kept. The owner is `user_id` in version 1.
_VALUES = {
    "value": "amount",
    "currency": "currency",
    "probability": "probability",
    "expected_close_date": "expected_close_date",
    "owner_id": "owner",
    "user_id": "owner",
    "status": "status",
}
_ATTEMPT = re.compile(rb'("(?:attempt|retry)"\s*:\s*)[0-9]+')


class _Version(NamedTuple):
    """How a version of the bodies names things.

    Attributes:
        kind: Field of ``meta`` with the kind of the object.
        entity_id: Field of ``meta`` with its id.
        state: Field of the body with its state.
        actions: Its words for create, change and delete.
        previous_is_whole: Whether ``previous`` holds all fields, not only those that changed.
        delivery_id: Fields of ``meta`` that together are the same only in retries of one delivery.
    """

    kind: str
    entity_id: str
    state: str
    actions: dict[str, str]
    previous_is_whole: bool
    delivery_id: tuple[str, ...]


_V1 = _Version(
    "object",
    "id",
    "current",
    {"added": "create", "updated": "change", "deleted": "delete"},
    True,
    ("webhook_id", "object", "id", "action", "timestamp_micro"),
)
_V2 = _Version(
    "entity",
    "entity_id",
    "data",
    {"create": "create", "change": "change", "delete": "delete"},
    False,
    ("webhook_id", "id"),
)


def parse(
    body: bytes,
    headers: Mapping[str, str],
    received_at: datetime,
    zone: ZoneInfo,  # noqa: ARG001 - all senders are called alike, and Pipedrive writes UTC
) -> Parsed:
    """What ``body`` says; never raises. ``headers`` has lower-case keys."""
    findings = Findings(received_at)
    delivery_id: tuple[object, ...] = ()
    try:
        delivery = Fields(parse_json(body, headers), "", findings)
        meta = delivery.within("meta")
        version = _version(delivery, meta)
        delivery_id = tuple(meta.values.get(key) for key in version.delivery_id)
        _read(delivery, meta, version, findings)
    except Unreadable as reason:
        findings.note(str(reason))
    return findings.parsed(sender_delivery_id(headers, *delivery_id))


def content(body: bytes) -> bytes:
    """``body`` as it is the same in every attempt to deliver it: their count set to 0."""
    return _ATTEMPT.sub(rb"\g<1>0", body)


def _version(delivery: Fields, meta: Fields) -> _Version:
    if meta.word("version") == "2.0":
        return _V2
    if delivery.values.get("v") == 1:
        return _V1
    raise Unreadable("neither is meta.version 2.0 nor v 1")


def _read(delivery: Fields, meta: Fields, version: _Version, findings: Findings) -> None:
    kind, action = meta.word(version.kind), meta.word("action")
    if kind in _OTHER_OBJECTS:
        return
    if kind != "deal":
        findings.note_unknown_type(f"{kind}.{action}")
        return
    deal_id = meta.identifier(version.entity_id, required=True)
    if deal_id is None:
        return
    findings.speaks_of("deal", deal_id)
    match version.actions.get(action):
        case "create":
            _created(deal_id, delivery.within(version.state), findings)
        case "change":
            now, before = delivery.within(version.state), delivery.within("previous")
            _moved(deal_id, meta, now, before, version, findings)
            _changed(deal_id, meta, now, before, findings)
        case "delete":
            _deleted(deal_id, meta, findings)
        case _:
            findings.note_unknown_type(f"{kind}.{action}")


def _created(deal_id: str, now: Fields, findings: Findings) -> None:
    created_at = now.instant("add_time", required=True)
    if created_at is not None:
        _add_stage_event(deal_id, now, None, created_at, created_at, findings)
        findings.add(LifecycleEvent("deal", deal_id, "created", created_at, None))


def _moved(
    deal_id: str, meta: Fields, now: Fields, before: Fields, version: _Version, findings: Findings
) -> None:
    """Keep the move into another stage, if this is one."""
    if "stage_id" not in before.values:
        return
    previous_id = before.identifier("stage_id")
    if version.previous_is_whole and previous_id == now.identifier("stage_id"):
        return
    moved_at = _changed_at("stage_change_time", now, meta)
    if moved_at is not None:
        created_at = now.instant("add_time")
        _add_stage_event(deal_id, now, previous_id, moved_at, created_at, findings)


def _changed(deal_id: str, meta: Fields, now: Fields, before: Fields, findings: Findings) -> None:
    """Keep the changes of other values."""
    changes = []
    for key, field in _VALUES.items():
        if key not in before.values:
            continue
        try:
            old, new = before.text(key), now.text(key)
        except Unreadable as reason:
            findings.note(str(reason))
            continue
        if old != new:
            changes.append((field, old, new))
    changed_at = _changed_at("update_time", now, meta) if changes else None
    if changed_at is not None:
        for field, old, new in changes:
            findings.add(ValueChange("deal", deal_id, field, old, new, changed_at))


def _deleted(deal_id: str, meta: Fields, findings: Findings) -> None:
    deleted_at = meta.instant("timestamp", required=True)
    was_merged = meta.values.get("merged_to_id") is not None
    merged_into = meta.identifier("merged_to_id", required=was_merged)
    if merged_into is not None:
        findings.speaks_of("deal", merged_into)
    if deleted_at is not None and was_merged == (merged_into is not None):
        event = "merged" if was_merged else "deleted"
        findings.add(LifecycleEvent("deal", deal_id, event, deleted_at, merged_into))


def _changed_at(key: str, now: Fields, meta: Fields) -> datetime | None:
    """When a change was made: as the deal says in ``key``, else when Pipedrive told of it."""
    if now.values.get(key) is None:
        return meta.instant("timestamp", required=True)
    return now.instant(key, required=True)


def _add_stage_event(
    deal_id: str,
    now: Fields,
    previous_id: str | None,
    entered_at: datetime,
    created_at: datetime | None,
    findings: Findings,
) -> None:
    pipeline_id = now.identifier("pipeline_id")
    stage_id = now.identifier("stage_id", required=True)
    if stage_id is not None:
        findings.add(
            StageEvent(
                "deal", deal_id, pipeline_id, stage_id, None, previous_id, entered_at, created_at
            )
        )
