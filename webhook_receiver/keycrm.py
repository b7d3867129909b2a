"""Reads what KeyCRM sends (contract keycrm 2.5, spec orders): an order or card as it is now.

A body holds no previous state, no time of sending and no id of its own. Webhooks for stock send
lists of offers, which say nothing of an order.
"""

from collections.abc import Mapping
from datetime import datetime
from zoneinfo import ZoneInfo

from webhook_receiver.bodies import Unreadable, parse_json
from webhook_receiver.events import LifecycleEvent, Parsed, StageEvent, ValueChange
from webhook_receiver.findings import Fields, Findings, sender_delivery_id


def parse(
    body: bytes,
    headers: Mapping[str, str],
    received_at: datetime,
    zone: ZoneInfo,  # noqa: ARG001 - all senders are called alike, and KeyCRM writes UTC
) -> Parsed:
    """What ``body`` says; never raises. ``headers`` has lower-case keys."""
    findings = Findings(received_at)
    try:
        _read(parse_json(body, headers), findings)
    except Unreadable as reason:
        findings.note(str(reason))
    return findings.parsed(sender_delivery_id(headers))


def _read(body: object, findings: Findings) -> None:
    if _is_stock(body):
        return
    delivery = Fields(body, "", findings)
    event = delivery.word("event")
    entity_type = event.partition(".")[0]
    if entity_type not in ("order", "lead"):
        findings.note_unknown_type(event)
        return
    context = delivery.within("context")
    entity_id = context.identifier("id", required=True)
    if entity_id is None:
        return
    findings.speaks_of(entity_type, entity_id)
    deleted_at = context.instant("deleted_at")
    if deleted_at is not None:
        findings.add(LifecycleEvent(entity_type, entity_id, "deleted", deleted_at, None))
    match event:
        case "order.change_order_status":
            _order_status(entity_id, context, findings)
        case "order.change_payment_status":
            _payment_status(entity_id, context, findings)
        case "lead.change_lead_status":
            _lead_status(entity_id, context, findings)
        case _:
            findings.note_unknown_type(event)


def _is_stock(body: object) -> bool:
    return (
        isinstance(body, list)
        and bool(body)
        and all(isinstance(offer, dict) and offer.keys() & {"offer_id", "sku"} for offer in body)
    )


def _order_status(order_id: str, context: Fields, findings: Findings) -> None:
    # An order that has never moved has no time of its last move (null): it is where it was created.
    # A field that is not there at all says nothing, so it stays unread.
    never_moved = context.values.get("status_changed_at", "") is None
    created_at = context.instant("created_at", required=never_moved)
    entered_at = created_at if never_moved else context.instant("status_changed_at", required=True)
    _add_stage_event(findings, "order", order_id, None, context, entered_at, created_at)


def _lead_status(lead_id: str, context: Fields, findings: Findings) -> None:
    # Cards are described by receivers alone: either field is read as the time of the move.
    moved = "updated_at" if context.values.get("status_changed_at") is None else "status_changed_at"
    in_pipeline = context
    if context.values.get("pipeline_id") is None and isinstance(context.values.get("status"), dict):
        in_pipeline = context.within("status")
    _add_stage_event(
        findings,
        "lead",
        lead_id,
        in_pipeline.identifier("pipeline_id"),
        context,
        context.instant(moved, required=True),
        context.instant("created_at"),
    )


def _add_stage_event(
    findings: Findings,
    entity_type: str,
    entity_id: str,
    pipeline_id: str | None,
    context: Fields,
    entered_at: datetime | None,
    created_at: datetime | None,
) -> None:
    stage_id = context.identifier("status_id", required=True)
    group_id = context.identifier("status_group_id")
    if stage_id is not None and entered_at is not None:
        findings.add(
            StageEvent(
                entity_type,
                entity_id,
                pipeline_id,
                stage_id,
                group_id,
                None,
                entered_at,
                created_at,
            )
        )


def _payment_status(order_id: str, context: Fields, findings: Findings) -> None:
    # A payment need not move `status_changed_at`; that it changes nothing else is not promised, so
    # the status of such a body is no stage event.
    status = context.text("payment_status")
    changed_at = context.instant("updated_at", required=True)
    if changed_at is not None:
        findings.add(ValueChange("order", order_id, "payment_status", None, status, changed_at))
