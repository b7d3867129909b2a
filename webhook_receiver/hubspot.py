"""Reads what HubSpot sends (contract hubspot 1.9): a list of events, each of one object.

Deals and tickets matter here. An event says what a property was set to, not what it was before, and
its ``eventId`` is not unique: what happened, to what and when is its identity.
"""

import re
from collections.abc import Mapping
from datetime import datetime
from zoneinfo import ZoneInfo

from webhook_receiver.bodies import Unreadable, parse_json
from webhook_receiver.events import LifecycleEvent, Parsed, StageEvent, ValueChange
from webhook_receiver.findings import Fields, Findings, sender_delivery_id

#: Events that are read of one body. HubSpot promises at most 100; reading must not hold up others.
MOST_EVENTS = 1_000

#: The kinds of objects that ``object.*`` events name by a number; all others are `_CUSTOM`.
_KINDS = {"0-3": "deal", "0-5": "ticket"}
_CUSTOM = "custom"
#: Objects whose events are known, and of no interest.
_OTHER_KINDS = frozenset(("company", "contact", "conversation", "line_item", "product", _CUSTOM))
_STAGE_PROPERTY = {"deal": "dealstage", "ticket": "hs_pipeline_stage"}
#: The properties of a deal whose changes are kept.
_VALUES = {
    "amount": "amount",
    "deal_currency_code": "currency",
    "hs_deal_stage_probability": "probability",
    "closedate": "expected_close_date",
    "hubspot_owner_id": "owner",
}
_LIFECYCLE = {"creation": "created", "deletion": "deleted", "restore": "restored"}
_ATTEMPT = re.compile(rb'("attemptNumber"\s*:\s*)[0-9]+')


def parse(
    body: bytes,
    headers: Mapping[str, str],
    received_at: datetime,
    zone: ZoneInfo,  # noqa: ARG001 - all senders are called alike, and HubSpot counts milliseconds
) -> Parsed:
    """What ``body`` says; never raises. ``headers`` has lower-case keys."""
    findings = Findings(received_at)
    told_of = ""
    try:
        events = _events(parse_json(body, headers))
        unread = sum(not _reads_whole(event, findings) for event in events)
        if len(events) > 1:
            told_of = f"{unread} of {len(events)} events: "
    except Unreadable as reason:
        findings.note(str(reason))
    return findings.parsed(sender_delivery_id(headers), told_of=told_of)


def content(body: bytes) -> bytes:
    """``body`` as it is the same in every attempt to deliver it: their count set to 0."""
    return _ATTEMPT.sub(rb"\g<1>0", body)


def _events(body: object) -> list[object]:
    events = body if isinstance(body, list) else [body]
    if not events:
        raise Unreadable("the body is an empty list")
    if len(events) > MOST_EVENTS:
        raise Unreadable(f"the body holds more than {MOST_EVENTS} events")
    return events


def _reads_whole(event: object, findings: Findings) -> bool:
    noted = len(findings.reasons)
    try:
        _read(Fields(event, "event.", findings), findings)
    except Unreadable as reason:
        findings.note(str(reason))
    return len(findings.reasons) == noted


def _read(event: Fields, findings: Findings) -> None:
    event_type = event.word("subscriptionType") or event.word("eventType")
    kind, _, change = event_type.partition(".")
    type_id = event.word("objectTypeId")
    if kind == "object" and type_id:
        kind = _KINDS.get(type_id, _CUSTOM)
    if kind in _OTHER_KINDS:
        return
    if kind not in _STAGE_PROPERTY:
        findings.note_unknown_type(event_type)
        return
    match change:
        case "propertyChange":
            _property_changed(kind, event, findings)
        case "creation" | "deletion" | "restore":
            _lived(kind, change, event, findings)
        case "merge":
            _merged(kind, event, findings)
        case "associationChange":
            pass
        case _:
            findings.note_unknown_type(event_type)


def _property_changed(kind: str, event: Fields, findings: Findings) -> None:
    entity_id = event.identifier("objectId", required=True)
    if entity_id is None:
        return
    findings.speaks_of(kind, entity_id)
    name = event.word("propertyName")
    if name == _STAGE_PROPERTY[kind]:
        stage_id = event.identifier("propertyValue", required=True)
        entered_at = event.instant("occurredAt", required=True)
        if stage_id is not None and entered_at is not None:
            findings.add(StageEvent(kind, entity_id, None, stage_id, None, None, entered_at, None))
    elif kind == "deal" and name in _VALUES:
        value = event.text("propertyValue")
        changed_at = event.instant("occurredAt", required=True)
        if changed_at is not None:
            findings.add(ValueChange(kind, entity_id, _VALUES[name], None, value, changed_at))


def _lived(kind: str, change: str, event: Fields, findings: Findings) -> None:
    entity_id = event.identifier("objectId", required=True)
    if entity_id is None:
        return
    findings.speaks_of(kind, entity_id)
    occurred_at = event.instant("occurredAt", required=True)
    if occurred_at is not None:
        findings.add(LifecycleEvent(kind, entity_id, _LIFECYCLE[change], occurred_at, None))


def _merged(kind: str, event: Fields, findings: Findings) -> None:
    is_new = event.values.get("newObjectId") is not None
    survivor = event.identifier("newObjectId" if is_new else "primaryObjectId", required=True)
    occurred_at = event.instant("occurredAt", required=True)
    for entity_id in event.identifiers("mergedObjectIds"):
        findings.speaks_of(kind, entity_id)
        if survivor is not None and occurred_at is not None and entity_id != survivor:
            findings.add(LifecycleEvent(kind, entity_id, "merged", occurred_at, survivor))
    if survivor is not None:
        findings.speaks_of(kind, survivor)
